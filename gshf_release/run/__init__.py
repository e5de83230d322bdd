"""The run directory: stages, fingerprints, manifests, locks, journal, resumption."""
