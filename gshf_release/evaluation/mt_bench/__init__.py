"""MT-Bench: averages and win rates of stored judgments."""
