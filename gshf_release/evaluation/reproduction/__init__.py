"""Does a published claim hold? Recompute it from judgments, from answers, from weights, from the recipe.

gshf-release reproduce fsfairx-zephyr-7b --outputs model_outputs.json
"""

from gshf_release.evaluation.reproduction.claims import load
from gshf_release.evaluation.reproduction.verdict import CONTRADICTED, UNCHECKABLE, VERIFIED, Reproduction, reproduce

__all__ = ["CONTRADICTED", "UNCHECKABLE", "VERIFIED", "Reproduction", "load", "reproduce"]
