"""Finds, measures, loads and runs models: templates, token ids, log-probabilities, adapters."""
