"""Tests of quantizations: what needs no other environment."""
