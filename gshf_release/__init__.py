"""gshf-release: from a recipe to a run, from a run to results, from results to a model release."""

__version__ = "0.1.0"
