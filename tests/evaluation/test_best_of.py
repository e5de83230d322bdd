"""The base's best of n and the base at other temperatures: what is chosen, the divergence, the cells in a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from gshf_release import pipeline
from gshf_release.data.records import Sample
from gshf_release.data.results import Cell, find, read_cells, rows_of, select
from gshf_release.evaluation.best_of import best_of
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.recipe import Recipe
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from tests.end_to_end.train_tiny import EXACT, evaluate


def test_the_highest_of_the_first_n_wins_and_ties_go_to_the_first() -> None:
    rewards = {("p", 0): 1.0, ("p", 1): 3.0, ("p", 2): 3.0, ("p", 3): 9.0, ("q", 0): 2.0, ("q", 1): 1.0}
    assert best_of(rewards, 3) == {"p": 1, "q": 0}
    assert best_of(rewards, 4) == {"p": 3, "q": 0}


def test_a_run_compares_with_the_best_of_n_and_with_other_temperatures(
    one_thread: None, tiny_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    wanted = tiny_recipe.evaluation.model_copy(update={"best_of": (2, 10), "temperatures": (0.5, 0.9), "prompts": None})
    loop = tiny_recipe.loop.model_copy(update={"iterations": 1})
    recipe = tiny_recipe.model_copy(update={"evaluation": wanted, "loop": loop})
    run = RunDirectory.create(tmp_path / "run", recipe, EXACT)
    pipeline.train(run, recipe, EXACT, allow_redo=False, observer=SilentObserver())
    evaluate(run)
    cells = read_cells(run.path / "results.json")
    gains = [
        find(cells, row=f"base, best of {n}", metric="gain over base", judge="reward", decoding="T=1") for n in (2, 10)
    ]
    assert gains[1].value > gains[0].value  # type: ignore[union-attr, operator]
    assert [row for row in rows_of(cells) if "best of" in row] == ["base, best of 2", "base, best of 10"]
    assert gains[0].n == 4  # type: ignore[union-attr]
    trained = select(cells, table="test", row="iteration-1", metric="gain over base", decoding="T=1")
    assert {cell.judge for cell in trained} == {"reward", "second-scorer"}
    control = find(cells, row="base at T=0.3", metric="gain over base", judge="reward")
    own = find(cells, table="test", row="base", metric="score", decoding="T=0.3", judge="reward")
    warm = find(cells, table="test", row="base", metric="score", decoding="T=0.7", judge="reward")
    assert control.value == pytest.approx(own.value - warm.value)  # type: ignore[union-attr, operator]
    check_temperatures(run, cells)


def check_temperatures(run: RunDirectory, cells: list[Cell]) -> None:
    """The KL of the base at a temperature from itself, by transformers alone; less of it nearer to temperature 1."""
    samples = Sample.read(*sorted((run.path / "base/temperatures/answers").glob("**/samples.parquet")))
    model = AutoModelForCausalLM.from_pretrained(run.path / "base" / "model", dtype=torch.float32)
    expected = {}
    for temperature in (0.5, 0.9):
        totals = []
        for sample in samples:
            if sample.temperature == temperature:
                ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
                with torch.no_grad():
                    logits = model(ids).logits[0, len(sample.prompt_ids) - 1 : -1]
                sharp, plain = torch.log_softmax(logits / temperature, -1), torch.log_softmax(logits, -1)
                totals.append(float((sharp.exp() * (sharp - plain)).sum()))
        expected[temperature] = sum(totals) / len(totals)
        row = f"base, T={temperature:g}"
        divergence = find(cells, table="test", row=row, metric=KL_TO_BASE)
        assert divergence is not None
        assert divergence.value == pytest.approx(expected[temperature], rel=0.02)
        assert find(cells, table="test", row=row, metric="gain over base", judge="reward", decoding="T=1") is not None
    assert expected[0.9] < expected[0.5]
