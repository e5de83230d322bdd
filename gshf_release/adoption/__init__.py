"""Runs are made here of what other tools left: checkpoints, pairs and judgments."""
