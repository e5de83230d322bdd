"""MT-Bench: grades of 80 questions of two turns."""
