"""What a loss is computed of: three pairs are sent through the stages that train, and TRL's own loss is listened to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gshf_release.data.records import Pair, Winner
from gshf_release.models import stages as model_stages
from gshf_release.optimization import dpo, raft, reference_logprobs
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.stage import Stage
from tests.optimization import plan
from tests.optimization.plan import EOS, EXACT

LONG = 1200
"""Tokens of a completion; TRL's trainers would cut it at 1,024 if they were left to."""
TRAINERS = {"gshf": "DPOTrainer", "raft": "SFTTrainer"}


def pairs() -> list[Pair]:
    """Return three pairs: all chosen completions ended, one of them is long; two of the rejected were cut, without EOS."""
    chosen = [[60, 61, EOS], [62, *[63] * LONG, EOS], [64, EOS]]
    rejected = [[70, 71, 72, 73], [74, EOS], [75, 76]]
    first, *_ = plan.pairs()
    return [
        replace(first, prompt_id=f"p{i}", prompt_ids=[4, 40 + i, 5], chosen_ids=chosen[i], rejected_ids=rejected[i])
        for i in range(3)
    ]


def winners() -> list[Winner]:
    """Return both sides of the pairs as responses to train on."""
    return [
        Winner(f"{pair.prompt_id}-{side}", 1, pair.prompt_ids, ids, "", 0, 1.0, "f" * 64)
        for pair in pairs()
        for side, ids in enumerate((pair.chosen_ids, pair.rejected_ids))
    ]


def write(context: StageContext) -> None:
    """Write the pairs, or the winners."""
    if "pairs.parquet" in context.task.stage.outputs:
        Pair.write(pairs(), context.output("pairs.parquet"))
    else:
        Winner.write(winners(), context.output("winners.parquet"))


class Heard(NamedTuple):
    """One row of a batch, without its padding."""

    sequence: list[int]
    counted: list[int]
    """The tokens that the loss counts."""


@contextmanager
def listen(trainer: type[Any]) -> Iterator[list[Heard]]:
    """Give a list that fills with what `trainer.compute_loss` gets; the loss is computed as ever."""
    heard: list[Heard] = []
    compute_loss = trainer.compute_loss

    def listening(self: Any, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        counts = inputs["completion_mask"] == 1 if "completion_mask" in inputs else inputs["labels"] != -100
        for ids, attended, counted in zip(inputs["input_ids"], inputs["attention_mask"], counts, strict=True):
            heard.append(Heard(ids[attended.bool()].tolist(), ids[counted].tolist()))
        return compute_loss(self, model, inputs, *rest, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trainer, "compute_loss", listening)
        yield heard


def expected() -> list[Heard]:
    """Return what a loss must be given, by sequence: the stored ids as they are, the completions counted."""
    sides = [(pair.prompt_ids, ids) for pair in pairs() for ids in (pair.chosen_ids, pair.rejected_ids)]
    return sorted(Heard(prompt + ids, ids) for prompt, ids in sides)


def train(algorithm: str, folder: Path, path: Path) -> list[Heard]:
    """Train the tiny policy for one epoch in a run at `path`, and return what the loss was given."""
    import trl

    kind = "pairs" if algorithm == "gshf" else "winners"
    stages = [Stage(f"iteration-1/{kind}", "tests.optimization.sent:write", outputs=(f"{kind}.parquet",))]
    if algorithm == "gshf":
        stages += [
            reference_logprobs.declare_reference_logprobs("iteration-1", "base"),
            dpo.declare_dpo(1, init="base", sources=["iteration-1"]),
        ]
    else:
        stages.append(raft.declare_raft(1, init="base", sources=["iteration-1"]))
    chosen = plan.recipe(folder)
    run = RunDirectory.create(path, chosen, EXACT)
    with listen(getattr(trl, TRAINERS[algorithm])) as found:
        execute([model_stages.declare_base(chosen), *stages], run, chosen, EXACT)
    return found
