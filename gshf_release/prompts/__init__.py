"""Prompts: read, order and divide into five disjoint roles."""
