"""The final iteration: the last, or the best within budgets of KL and length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.results import Cell
from gshf_release.diagnostics import checkpoint_selection
from gshf_release.errors import RecipeError
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.recipe import Recipe, parse
from gshf_release.run.context import StageContext
from gshf_release.run.directory import read_json
from gshf_release.run.execution import execute
from gshf_release.run.stage import Parameters, Stage
from tests.run.plans import PROFILES, RECIPE, begin, recipe

# reward at T=0.7, KL, length at T=0.7
MEASURED = {
    "base": (0.0, 0.0, 40.0),
    "iteration-1": (1.0, 2.0, 44.0),
    "iteration-2": (2.0, 5.0, 50.0),
    "iteration-3": (3.0, 20.0, 90.0),
}


class Row(Parameters):
    """Say whose cells these are."""

    row: str


def nothing(context: StageContext) -> None:
    """Write an empty output."""
    context.output("traces.parquet").touch()


def cells(context: StageContext) -> list[Cell]:
    """Return the measured cells of a row."""
    row = context.parameters(Row).row
    reward, kl, length = MEASURED[row]
    place: dict[str, Any] = {"table": "validation", "row": row, "artefact": row, "n": 4}
    return [
        Cell(metric="score", value=reward, decoding="T=0.7", judge="reward", **place),
        Cell(metric="score", value=-reward, decoding="greedy", judge="reward", **place),
        Cell(metric="length", value=length, decoding="T=0.7", **place),
        Cell(metric=KL_TO_BASE, value=kl, decoding="T=1", **place),
    ]


def chosen(path: Path, **loop: Any) -> dict[str, Any]:
    wanted = recipe(loop=loop)
    here = "tests.diagnostics.test_checkpoint_selection"
    measures = [
        Stage(
            f"{row}/validation/measure",
            f"{here}:nothing",
            outputs=("traces.parquet",),
            parameters=Row(row=row).as_json(),
            numbers=f"{here}:cells",
        )
        for row in MEASURED
    ]
    run = begin(path, wanted)
    execute([*measures, checkpoint_selection.declare_checkpoint_selection(3)], run, wanted, PROFILES["here"])
    return read_json(run.path / "final" / "final.json")


@pytest.mark.parametrize(
    ("loop", "iteration", "reason"),
    [
        ({}, 3, "the last"),
        ({"final": "validation", "kl_budget": 6.0}, 2, "highest validation reward"),
        ({"final": "validation", "length_budget": 1.2}, 1, "highest validation reward"),
        ({"final": "validation", "kl_budget": 100.0, "length_budget": 3.0}, 3, "highest validation reward"),
        ({"final": "validation", "kl_budget": 0.5}, 1, "none is within the budgets"),
    ],
)
def test_the_choice(tmp_path: Path, loop: dict[str, Any], iteration: int, reason: str) -> None:
    document = chosen(tmp_path / "run", **loop)
    assert document["iteration"] == iteration
    assert reason in document["reason"]
    assert [entry["reward"] for entry in document["candidates"]] == [1.0, 2.0, 3.0]
    assert document["candidates"][1]["length_ratio"] == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("loop", "message"),
    [({"final": "validation"}, "needs kl_budget or length_budget"), ({"kl_budget": 1.0}, "need final 'validation'")],
)
def test_reward_alone_never_chooses(loop: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(Recipe, RECIPE.model_dump(mode="json") | {"loop": loop}, "test")
