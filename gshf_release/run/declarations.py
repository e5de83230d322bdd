"""Which functions the stages of this package name: what each stage's work is, and what computes its numbers again.

`plan.json` of a run says the same of its stages, but a run from elsewhere may say anything. Whoever recomputes numbers takes
the function from here, and a plan that names another one is a difference like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gshf_release.errors import VerificationError
from gshf_release.run.stage import Stage, resolve

PACKAGE = "gshf_release."
NUMBERS: dict[str, str] = {
    "base:adopt": "",
    "base:adopt_reference": "",
    "base:write_rendering": "",
    "diagnostics.exploration:describe": "diagnostics.exploration:numbers",
    "diagnostics.validation:measure": "diagnostics.validation:numbers",
    "evaluation.answers:adopt_answers": "",
    "evaluation.answers:sample_turn": "",
    "evaluation.answers:write_answers": "",
    "evaluation.answers:write_prompts": "",
    "evaluation.answers:write_questions": "",
    "evaluation.answers:write_rendering": "",
    "evaluation.best_of:choose": "evaluation.best_of:numbers",
    "evaluation.imports:adopt": "evaluation.imports:numbers",
    "evaluation.judgments:judge": "",
    "evaluation.paired:write": "evaluation.paired:numbers",
    "evaluation.scores:write_score": "evaluation.scores:numbers",
    "evaluation.stages:judge": "evaluation.stages:numbers",
    "final:choose": "",
    "optimization.dpo:optimise": "optimization.dpo:numbers",
    "optimization.raft:optimise": "optimization.raft:numbers",
    "optimization.reference:compute": "",
    "optimization.reference:compute_ahead": "",
    "preference.offline:write_pairs": "preference.offline:numbers",
    "preference.pairs:select": "preference.pairs:numbers",
    "preference.ranking:write_log_ratios": "",
    "preference.winners:select": "preference.winners:numbers",
    "prompts.augmentation:write": "prompts.augmentation:cells",
    "prompts.contamination:write": "prompts.contamination:numbers",
    "prompts.split:write_evaluation": "prompts.split:evaluation_numbers",
    "prompts.split:write_pool": "prompts.split:numbers",
    "prompts.split:write_role": "",
    "prompts.used:write": "",
    "release.adopt:refuse": "",
    "release.data_sets:write": "",
    "release.prompt_set:write": "",
    "release.quantization.stage:write_compressed": "release.quantization.stage:numbers",
    "release.quantization.stage:write_gguf_files": "release.quantization.stage:numbers",
    "release.stages:write_weights": "",
    "rewards.stages:adopt": "",
    "rewards.stages:score": "",
    "rewards.stages:write_contrasts": "",
    "rewards.training:train": "rewards.training:numbers",
    "sampling.stage:sample": "",
}
"""`{work: numbers}`, without the package's name; a stage whose work has no numbers has the empty text."""
SOMETIMES = ("prompts.split:write_evaluation",)
"""Works whose stages are also declared without numbers."""


def difference(stage: Stage) -> str:
    """Return in one line where a recorded stage names another function than the package declares; empty if nowhere."""
    work = stage.work.removeprefix(PACKAGE)
    if not stage.work.startswith(PACKAGE) or work not in NUMBERS:
        return f"{stage.name}: plan.json names the work {stage.work[:100]!r}, which gshf-release does not have."
    allowed = {f"{PACKAGE}{NUMBERS[work]}" if NUMBERS[work] else ""} | ({""} if work in SOMETIMES else set())
    if stage.numbers in allowed:
        return ""
    return f"{stage.name}: plan.json computes its numbers by {stage.numbers[:100]!r}, gshf-release by {max(allowed)!r}."


def numbers(stage: Stage) -> Callable[..., Any]:
    """Return the package's own function that computes the numbers of a recorded stage.

    Raises:
        VerificationError: The package declares no such stage, or another function.
    """
    wrong = difference(stage)
    if wrong:
        raise VerificationError(wrong)
    return resolve(stage.numbers)
