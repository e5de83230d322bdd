"""Samples and rewards to preference pairs; every dropped prompt is counted by its reason."""
