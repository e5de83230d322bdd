"""Holds typed rows, results, hashes and statistics, and reads every file that a user brings."""
