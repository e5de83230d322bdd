"""What a run would take, what it took, and what this machine lacks for it."""
