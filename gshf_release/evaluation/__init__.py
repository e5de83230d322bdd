"""Answers to prompts that training never saw, and how they compare with the base's."""
