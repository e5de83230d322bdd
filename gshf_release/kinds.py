"""Which stages sample, score or train, and which part of a run a stage belongs to: what `status` and `train --plan` sort by."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["sampling", "scoring", "training"]
KINDS: tuple[Kind, ...] = ("sampling", "scoring", "training")

OF_WORK: dict[str, Kind] = {
    "gshf_release.sampling.stage:sample": "sampling",
    "gshf_release.prompts.augmentation:write": "sampling",
    "gshf_release.evaluation.answers:write_answers": "sampling",
    "gshf_release.evaluation.answers:sample_turn": "sampling",
    "gshf_release.rewards.stages:score": "scoring",
    "gshf_release.preference.ranking:write_log_ratios": "scoring",
    "gshf_release.optimization.reference:compute": "scoring",
    "gshf_release.optimization.reference:compute_ahead": "scoring",
    "gshf_release.diagnostics.validation:measure": "scoring",
    "gshf_release.rewards.training:train": "training",
    "gshf_release.optimization.dpo:optimise": "training",
    "gshf_release.optimization.raft:optimise": "training",
}
"""Scoring is every forward pass over given sequences: rewards, log-probabilities under the reference, and the validation's
measurement. A stage that is not here does none of the three."""

PREPARATION, EVALUATION, RELEASE = "preparation", "evaluation", "release"
_ITERATION = re.compile(r"iteration-(\d+)/(validation/.*|[^/]+)$")


def part_of_run(stage: str) -> str:
    """Return `iteration t` for the stages of the loop, else `preparation`, `evaluation` or `release`.

    Args:
        stage: A stage's name. `iteration-1/validation/answers` is of the loop, `iteration-1/test/answers` of the evaluation.
    """
    of_loop = _ITERATION.match(stage)
    if of_loop:
        return f"iteration {of_loop[1]}"
    if stage.startswith("release/"):
        return RELEASE
    before = ("base/validation/", "prompts/", "reward/", "offline/")
    if stage == "prompts/eval" or ("/" in stage and not stage.startswith(before)):
        return EVALUATION
    return PREPARATION
