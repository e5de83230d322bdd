"""Estimates what a run would take, measures what it took, and checks what this machine lacks for it."""
