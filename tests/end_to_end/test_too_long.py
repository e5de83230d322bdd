"""Texts that a model cannot read: one prompt or answer among many must not end the run, and must not vanish either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release import pipeline
from gshf_release.cli.terminal import summary
from gshf_release.data.records import Message, Prompt, Sample
from gshf_release.data.results import find, read_cells
from gshf_release.errors import EngineError
from gshf_release.prompts.split import ordered, ranges
from gshf_release.recipe import Recipe, parse
from gshf_release.release.lineage import verify_lineage
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import SilentObserver
from tests import tiny
from tests.end_to_end.train_tiny import EXACT

CONTEXT = 256
SCORER_CONTEXT = 128
FOR_THE_POLICY = "why is gold good for banks " * 120
"""Longer than the policy's context."""
FOR_THE_SCORER = "why is gold good for banks " * 24
"""Short enough for the policy, too long for a scorer that reads `SCORER_CONTEXT` tokens."""


class Listening(SilentObserver):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def notice(self, text: str) -> None:
        """Keep it."""
        self.told.append(text)


def prompt(text: str) -> Prompt:
    return Prompt.of([Message(role="user", content=text)])


def placed(folder: Path, recipe: Recipe, role: str, texts: list[str]) -> dict[str, str]:
    """Write a prompt file in which the seeded split gives `role` a variant of each text; return `{text: prompt id}`."""
    file = tiny.prompts_file(folder / "prompts.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines()
    pool = [prompt(json.loads(line)["prompt"]) for line in lines]
    found: dict[str, str] = {}
    for text in texts:
        for number in range(500):
            trial = prompt(f"{text}{number}?")
            start, stop = ranges(recipe)[role]
            order = [row.prompt_id for row in ordered([*pool, trial], recipe.seed)]
            if start <= order.index(trial.prompt_id) < stop:
                break
        pool.append(trial)
        found[text] = trial.prompt_id
    rows = [json.dumps({"prompt": row.messages[0]["content"]}) for row in pool]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return found


def recipe_of(folder: Path, **loop: Any) -> Recipe:
    tiny.save_reward_model(folder / "reward", seed=1, max_position_embeddings=SCORER_CONTEXT)
    return parse(Recipe, tiny.recipe(folder, loop={"iterations": 1, **loop}), "tiny")


def train(recipe: Recipe, path: Path) -> tuple[RunDirectory, list[str]]:
    run, observer = RunDirectory.create(path, recipe, EXACT), Listening()
    pipeline.train(run, recipe, EXACT, allow_redo=False, observer=observer)
    return run, observer.told


@pytest.mark.parametrize(("algorithm", "file"), [("gshf", "pairs"), ("raft", "winners")])
def test_training_texts_that_a_model_cannot_read_are_dropped_and_counted_by_reason(
    one_thread: None, tmp_path: Path, algorithm: str, file: str
) -> None:
    recipe = recipe_of(tmp_path, algorithm=algorithm)
    ids = placed(tmp_path, recipe, "iteration-1", [FOR_THE_POLICY, FOR_THE_SCORER])
    run, told = train(recipe, tmp_path / "run")
    counted = read_json(run.path / "iteration-1" / file / "dropped.json")
    assert counted["prompts"] == 8
    assert counted["dropped"]["prompt too long"] == 1
    assert counted["dropped"]["response too long to score"] == 1
    assert counted["responses"] == {"prompt too long": 4, "response too long to score": 4}
    cells = read_cells(run.path / "results.json")
    for reason in ("prompt too long", "response too long to score"):
        dropped = find(cells, row="iteration-1", metric=f"dropped: {reason}")
        assert dropped is not None
        assert (dropped.value, dropped.n) == (1, 8)
        assert f"1 {reason}" in summary(cells, "iteration-1")
    assert any(ids[FOR_THE_POLICY] in line and "256 tokens" in line for line in told)
    assert any(ids[FOR_THE_SCORER] in line and "reward model" in line for line in told)
    samples = [row for path in run.path.glob("iteration-1/samples/**/*.parquet") for row in Sample.read(path)]
    unanswered = {row.prompt_id for row in samples if not row.answered}
    assert unanswered == {ids[FOR_THE_POLICY]}
    lineage = verify_lineage(run)
    assert (lineage.responses, lineage.external) == (28, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [(FOR_THE_POLICY, "the model's context is 256"), (FOR_THE_SCORER, "too long for the reward model")],
)
def test_an_evaluation_prompt_that_a_model_cannot_read_is_one_error_that_names_it(
    one_thread: None, tmp_path: Path, text: str, message: str
) -> None:
    recipe = recipe_of(tmp_path)
    ids = placed(tmp_path, recipe, "validation", [text])
    with pytest.raises(EngineError, match=message) as caught:
        train(recipe, tmp_path / "run")
    assert ids[text] in str(caught.value)
    assert "\n" not in str(caught.value)
