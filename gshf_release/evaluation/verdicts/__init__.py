"""Read a verdict from what a judge said: one reading for evaluation, scores, verification and calibration."""
