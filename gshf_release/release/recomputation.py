"""Recompute the cells of a stage by this package's own functions, whatever a recorded plan names.

`plan.json` of a run from elsewhere may name any function. What computes numbers again is taken from here, by the stage's
identity, and an identity that is not here is a difference like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gshf_release.data.results import Cell
from gshf_release.diagnostics import exploration, validation
from gshf_release.errors import VerificationError
from gshf_release.evaluation import best_of, judgments, lm_eval_import, paired_comparisons, scores, temperature_curve
from gshf_release.evaluation import stages as evaluation
from gshf_release.optimization import dpo, raft
from gshf_release.preference import offline, pairs, winners
from gshf_release.prompts import augmentation, contamination, split
from gshf_release.release.quantization import stage as quantization
from gshf_release.rewards import stages as rewards
from gshf_release.rewards import training
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Stage

CELLS: Mapping[str, Callable[[StageContext], list[Cell]]] = {
    augmentation.IDENTITY: augmentation.augmentation_cells,
    best_of.IDENTITY: best_of.best_of_cells,
    contamination.IDENTITY: contamination.contamination_cells,
    dpo.IDENTITY: dpo.dpo_cells,
    evaluation.IDENTITY: evaluation.evaluation_cells,
    exploration.IDENTITY: exploration.exploration_cells,
    lm_eval_import.IDENTITY: lm_eval_import.lm_eval_cells,
    judgments.SCORE_IDENTITY: scores.score_cells,
    offline.IDENTITY: offline.offline_pair_cells,
    paired_comparisons.IDENTITY: paired_comparisons.paired_comparison_cells,
    pairs.IDENTITY: pairs.pair_cells,
    quantization.COMPRESSED_IDENTITY: quantization.quantization_cells,
    quantization.GGUF_IDENTITY: quantization.quantization_cells,
    raft.IDENTITY: raft.raft_cells,
    rewards.TRAINING_IDENTITY: training.reward_training_cells,
    split.EVALUATION_IDENTITY: split.evaluation_prompt_cells,
    split.POOL_IDENTITY: split.pool_cells,
    temperature_curve.IDENTITY: temperature_curve.temperature_cells,
    validation.IDENTITY: validation.validation_cells,
    winners.IDENTITY: winners.winner_cells,
}
"""By the identity of the stage; stages of other identities have no cells."""


def difference(stage: Stage) -> str:
    """Return in one line where a recorded stage is none of this package's; empty if nowhere. Where code lies may differ."""
    for function in (stage.work, stage.numbers):
        if function and not function.startswith("gshf_release."):
            return f"{stage.name}: plan.json names {function[:100]!r}, which is no function of gshf-release."
    if bool(stage.numbers) == (stage.identity in CELLS):
        return ""
    has = "has numbers" if stage.numbers else "has no numbers"
    return f"{stage.name}: plan.json says that {stage.identity[:100]!r} {has}; gshf-release does not declare it so."


def compute_cells(context: StageContext) -> list[Cell]:
    """Return the cells of a finished stage, computed from its files.

    Raises:
        VerificationError: The package declares no such stage.
    """
    stage = context.task.stage
    if wrong := difference(stage):
        raise VerificationError(wrong)
    return CELLS[stage.identity](context)
