"""One iteration's optimisation without what comes before: the tiny base, hand-made pairs, the real reference and policy stages.

As a program, `python -m tests.optimization.plan RUN` finishes a run that was begun, in a process that can be killed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gshf_release.data.records import Pair
from gshf_release.models import stages as model_stages
from gshf_release.optimization import dpo, reference_logprobs
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import Observer, execute
from gshf_release.run.stage import Parameters, Stage
from tests import tiny

EOS = 2
EXACT = Profile(inference_precision="fp32", threads=1, micro_batch_pairs=3)


class Count(Parameters):
    """Say how many of the hand-made rows are written."""

    count: int


def pairs() -> list[Pair]:
    """Return six pairs: chosen completions stopped, with EOS; every second rejected one was cut, without."""
    return [
        Pair(
            prompt_id=f"prompt-{number}",
            iteration=1,
            prompt_ids=[4, *range(40, 43 + number % 3), 5],
            chosen_ids=[60 + number, 61, 62 + number, EOS],
            rejected_ids=[90 + number, 91] + ([EOS] if number % 2 else [92, 93]),
            chosen_text="good",
            rejected_text="bad",
            chosen_index=0,
            rejected_index=1,
            chosen_reward=1.0,
            rejected_reward=0.0,
            policy_sha256="f" * 64,
        )
        for number in range(6)
    ]


def write_pairs(context: StageContext) -> None:
    """Write the hand-made pairs, or none."""
    Pair.write(pairs()[: context.parameters(Count).count], context.output("pairs.parquet"))


def recipe(folder: Path, **training: Any) -> Recipe:
    """Return the tiny recipe with one step an optimiser batch of three pairs, at a constant rate."""
    constant: dict[str, Any] = {
        "batch_pairs": 3,
        "epochs": 1,
        "learning_rate": 0.001,
        "schedule": "constant",
        "warmup_share": 0,
        "precision": "fp32",
        "checkpoint_every": 1,
    }
    return parse(Recipe, tiny.recipe(folder, training=constant | training), "tiny")


def stages(chosen: Recipe, count: int = 6) -> list[Stage]:
    """Return the base, the pairs, their reference log-probabilities and the policy."""
    made = Stage(
        "iteration-1/pairs",
        "tests.optimization.plan:write_pairs",
        outputs=("pairs.parquet",),
        parameters=Count(count=count).as_json(),
    )
    return [
        model_stages.declare_base(chosen),
        made,
        reference_logprobs.declare_reference_logprobs("iteration-1", "base"),
        dpo.declare_dpo(1, init="base", sources=["iteration-1"]),
    ]


def finish(run: RunDirectory, chosen: Recipe, profile: Profile = EXACT, observer: Observer | None = None) -> None:
    """Run the stages."""
    execute(stages(chosen), run, chosen, profile, observer=observer)


if __name__ == "__main__":
    import torch

    from gshf_release.models.checkpoints import quiet_libraries

    torch.set_num_threads(1)
    quiet_libraries()
    opened = RunDirectory.open(Path(sys.argv[1]))
    finish(opened, opened.recipe, opened.profile)
