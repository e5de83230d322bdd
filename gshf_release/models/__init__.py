"""Models are found, measured, loaded and run here: templates, token ids, log-probabilities, adapters."""
