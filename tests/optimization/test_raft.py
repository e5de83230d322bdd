"""RAFT's supervised step against a cross-entropy written out by hand. FP32, one thread, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gshf_release.data.hashing import seed_from
from gshf_release.data.records import Winner
from gshf_release.data.results import find, read_cells
from gshf_release.errors import DataError
from gshf_release.models import checkpoints
from gshf_release.models import stages as model_stages
from gshf_release.optimization import raft
from gshf_release.recipe import Recipe
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from gshf_release.run.stage import Stage
from tests.optimization.plan import EOS, EXACT, Count, recipe


def winners() -> list[Winner]:
    """Return six responses of different lengths, one of them cut."""
    return [
        Winner(
            prompt_id=f"prompt-{number}",
            iteration=1,
            prompt_ids=[4, *range(40, 43 + number % 3), 5],
            completion_ids=[60 + number, *range(70, 72 + number)] + ([EOS] if number else []),
            text="good",
            sample_index=0,
            reward=1.0,
            policy_sha256="f" * 64,
        )
        for number in range(6)
    ]


def write_winners(context: StageContext) -> None:
    """Write the hand-made winners, or none."""
    Winner.write(winners()[: context.parameters(Count).count], context.output("winners.parquet"))


def stages(chosen: Recipe, count: int = 6) -> list[Stage]:
    made = Stage(
        "iteration-1/winners",
        "tests.optimization.test_raft:write_winners",
        outputs=("winners.parquet",),
        parameters=Count(count=count).as_json(),
    )
    return [model_stages.declare_base(chosen), made, raft.declare_raft(1, init="base", sources=["iteration-1"])]


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    chosen = recipe(tiny_folder)
    run = RunDirectory.create(tmp_path_factory.mktemp("raft") / "run", chosen, EXACT)
    execute(stages(chosen), run, chosen, EXACT)
    return run


def cross_entropy(model: Any, batch: list[Winner]) -> float:
    """Return the mean over all completion tokens of the batch of -log p(token | what stands before it)."""
    losses: list[float] = []
    for winner in batch:
        ids = winner.prompt_ids + winner.completion_ids
        with torch.no_grad():
            logps = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        losses += [-float(logps[position - 1, ids[position]]) for position in range(len(winner.prompt_ids), len(ids))]
    return sum(losses) / len(losses)


def test_the_first_loss_by_hand(trained: RunDirectory, tiny_folder: Path) -> None:
    in_order = sorted(winners(), key=lambda winner: seed_from(0, "order", 0, winner.prompt_id))
    expected = cross_entropy(checkpoints.load_model(tiny_folder / "tiny", "fp32"), in_order[:3])
    steps = read_json(trained.path / "iteration-1" / "policy" / "training.json")["steps"]
    assert steps[0]["loss"] == pytest.approx(expected, abs=1e-5)
    assert len(steps) == 2


def test_the_winners_become_likelier(trained: RunDirectory, tiny_folder: Path) -> None:
    before = cross_entropy(checkpoints.load_model(tiny_folder / "tiny", "fp32"), winners())
    after = cross_entropy(checkpoints.load_model(trained.path / "iteration-1" / "policy" / "model", "fp32"), winners())
    assert after < before - 0.01


def test_cells_are_computed_from_the_metrics(trained: RunDirectory) -> None:
    cells = read_cells(trained.path / "results.json")
    assert find(cells, metric="optimiser steps").value == 2  # type: ignore[union-attr]
    assert 0 < find(cells, metric="weights changed after BF16").value <= 100  # type: ignore[union-attr, operator]


def test_no_winners_are_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_folder)
    run = RunDirectory.create(tmp_path / "run", chosen, EXACT)
    with pytest.raises(DataError, match=r"Iteration 1 has no responses to train on\. .*dropped\.json counts"):
        execute(stages(chosen, count=0), run, chosen, EXACT)
