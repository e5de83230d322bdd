"""Makes runs of what other tools left: checkpoints, pairs and judgments."""
