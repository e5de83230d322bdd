"""Preference pairs to the next policy."""
