"""The gradient of every optimiser step of a real training: thirteen pairs in steps of eight, weights at rest.

The reference's log-probabilities are made up, so that no two pairs have the same loss; the rate is too small to move a weight.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from gshf_release.data.records import Pair, ReferenceLogProbability, Winner
from gshf_release.models import packing
from gshf_release.models import stages as model_stages
from gshf_release.optimization import dpo, raft
from gshf_release.optimization.trainer import Resumable
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.checkpoint_layout import CheckpointLayout
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.launch import rank
from gshf_release.run.stage import Parameters, Stage
from tests.optimization import plan

COUNT, BATCH = 13, 8
AT_REST = {"batch_pairs": BATCH, "learning_rate": 1e-12, "max_gradient_norm": 1e9}


class File(Parameters):
    """Say what is written."""

    file: str


def pairs() -> list[Pair]:
    """Return thirteen pairs of very different lengths, 3 to 35 tokens of the chosen responses, with deviations."""
    six = plan.pairs()
    return [
        replace(
            six[number % 6],
            prompt_id=f"prompt-{number}",
            prompt_ids=[4, *range(20 + number, 24 + 2 * number), 5],
            chosen_ids=[60 + number, *range(100, 101 + 2 * (number % 5) ** 2), plan.EOS],
            chosen_deviation=0.1 * number,
            rejected_deviation=0.3,
        )
        for number in range(COUNT)
    ]


def references() -> list[tuple[float, float]]:
    """Return made-up log-probabilities of the chosen and the rejected responses."""
    return [(-20.0 - number, -24.0 + 3 * (number % 4)) for number in range(COUNT)]


def write(context: StageContext) -> None:
    """Write the pairs, the made-up log-probabilities, or the chosen sides as winners."""
    file = context.parameters(File).file
    rows: list[Any] = {
        "pairs": pairs,
        "reference": lambda: [
            ReferenceLogProbability(pair.prompt_id, *values, "f" * 64)
            for pair, values in zip(pairs(), references(), strict=True)
        ],
        "winners": lambda: [
            Winner(pair.prompt_id, 1, pair.prompt_ids, pair.chosen_ids, "good", 0, 1.0, "f" * 64) for pair in pairs()
        ],
    }[file]()
    type(rows[0]).write(rows, context.output(f"{file}.parquet"))


class Noting(Resumable):
    """Also keeps the gradient of every optimiser step."""

    folder: Path

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **options: Any) -> None:
        if rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = {name.removeprefix("module."): weight.grad.clone() for name, weight in model.named_parameters()}
            torch.save(found, self.folder / f"{state.global_step + 1}.pt")


def optimise(context: StageContext, *, padded: bool = False) -> None:
    """Train as the stage's own work does, and keep the gradients in the run."""
    module, train_policy = {dpo.IDENTITY: (dpo, dpo.train_dpo), raft.IDENTITY: (raft, raft.train_raft)}[
        context.task.stage.identity
    ]
    noting = Noting(context.progress, CheckpointLayout.of(context.profile))
    noting.folder = context.run.path / "gradients"
    can_pack = packing.can_pack if not padded else lambda *given: False
    with mock.patch.object(module, "resumable", return_value=noting), mock.patch.object(packing, "can_pack", can_pack):
        train_policy(context)


def optimise_padded(context: StageContext) -> None:
    """Do the same with every row of a batch padded."""
    optimise(context, padded=True)


def stages(chosen: Recipe, method: str, padded: bool) -> list[Stage]:
    """Return the base, the data and the policy of `dpo` or `raft`."""
    declare, names = {"dpo": (dpo.declare_dpo, ("pairs", "reference")), "raft": (raft.declare_raft, ("winners",))}[
        method
    ]
    policy = declare(1, init="base", sources=["iteration-1"])
    work = "optimise_padded" if padded else "optimise"
    data = [
        Stage(
            f"iteration-1/{name}",
            f"{__name__}:write",
            outputs=(f"{name}.parquet",),
            parameters=File(file=name).as_json(),
        )
        for name in names
    ]
    return [model_stages.declare_base(chosen), *data, replace(policy, work=f"{__name__}:{work}")]


def train(run: Path, chosen: Recipe, profile: Profile, method: str = "dpo", padded: bool = False) -> RunDirectory:
    """Return the finished run."""
    made = RunDirectory.create(run, chosen, profile)
    execute(stages(chosen, method, padded), made, chosen, profile)
    return made


def gradients(run: RunDirectory) -> list[dict[str, torch.Tensor]]:
    """Return the gradient of each optimiser step."""
    return [torch.load(path) for path in sorted((run.path / "gradients").iterdir())]
