"""Typed rows, results, hashes and statistics, and the readers of every file that a user brings."""
