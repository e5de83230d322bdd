"""What a run used cannot be used again: the manifest, and `prompts.exclude`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.records import Prompt
from gshf_release.errors import RecipeError
from gshf_release.prompts import split
from gshf_release.prompts.pool import Accepted, prompt_id
from gshf_release.prompts.usage import STAGE, PromptUse, excluded
from gshf_release.recipe import Recipe
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from tests.run.plans import PROFILES, begin, recipe

COUNTS = {"per_iteration": 5, "validation": 3, "test": 4}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a file of 60 prompts."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in range(60)), encoding="utf-8")
    return path


def small(source: Path, **changes: Any) -> Recipe:
    prompts = {"source": str(source), "roles": COUNTS} | changes
    return recipe(prompts=prompts, loop={"iterations": 2})


def divided(path: Path, chosen: Recipe) -> RunDirectory:
    """Return a run whose prompts are divided."""
    prompts, file = split.supply(chosen, Path(chosen.prompts.source))
    split.check_supply(chosen, len(prompts))
    run = begin(path, chosen)
    stages = [*split.declare_prompts(chosen, file), split.declare_used(chosen)]
    execute(stages, run, chosen, PROFILES["here"])
    return run


def rows(run: RunDirectory) -> list[PromptUse]:
    return PromptUse.read(run.path / STAGE / "used.parquet")


def test_the_manifest_names_every_prompt_and_its_role(source: Path, tmp_path: Path) -> None:
    run = divided(tmp_path / "run", small(source))
    found = {role: [row.prompt_id for row in rows(run) if row.role == role] for role in split.ranges(run.recipe)}
    for role, ids in found.items():
        assert ids == [
            prompt.prompt_id for prompt in Prompt.read(run.path / split.stage_name(role) / "prompts.parquet")
        ]
    assert len(rows(run)) == len({row.prompt_id for row in rows(run)}) == 3 + 4 + 2 * 5


def test_a_later_run_cannot_use_what_an_earlier_one_used(source: Path, tmp_path: Path) -> None:
    first = divided(tmp_path / "first", small(source))
    second = divided(tmp_path / "second", small(source, exclude=[str(first.path)]))
    third = divided(tmp_path / "third", small(source, exclude=[str(first.path), str(second.path)]))
    used = [row.prompt_id for run in (first, second, third) for row in rows(run)]
    assert len(used) == len(set(used)) == 51


def test_another_system_turn_does_not_make_it_another_prompt(source: Path, tmp_path: Path) -> None:
    first = divided(tmp_path / "first", small(source, system="Be brief."))
    second = divided(tmp_path / "second", small(source, exclude=[str(first.path)]))
    texts = [row.messages[-1]["content"] for run in (first, second) for row in rows(run)]
    assert len(texts) == len(set(texts)) == 34


def test_the_supply_counts_what_is_left(source: Path, tmp_path: Path) -> None:
    first = divided(tmp_path / "first", small(source))
    roles = COUNTS | {"per_iteration": 20}
    with pytest.raises(RecipeError, match=r"divides 47 prompts .* has 43 distinct ones beside the excluded"):
        divided(tmp_path / "second", small(source, exclude=[str(first.path)], roles=roles))


def test_what_is_excluded_belongs_to_the_fingerprint_and_the_path_does_not(source: Path, tmp_path: Path) -> None:
    first = divided(tmp_path / "first", small(source))
    one = split.supply(small(source, exclude=[str(first.path)]), source)[1]
    first.path.rename(tmp_path / "moved")
    assert split.supply(small(source, exclude=[str(tmp_path / "moved")]), source)[1] == one
    assert split.supply(small(source, exclude=[str(source)]), source)[1] != one
    assert split.supply(small(source), source)[1] != one


def test_a_file_of_prompts_can_be_excluded(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "question 7"}\n{"messages": [{"role": "user", "content": "hi"}]}\n', encoding="utf-8")
    prompts, _ = split.supply(small(source, exclude=[str(other)]), source)
    assert len(prompts) == 59


def test_a_run_that_wrote_prompts_can_be_excluded(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "prompts" / "written"
    folder.mkdir(parents=True)
    Accepted.write([Accepted(prompt_id("question 5"), "question 5", 0, 0, True)], folder / "accepted.parquet")
    prompts, _ = split.supply(small(source, exclude=[str(tmp_path / "run")]), source)
    assert "question 5" not in {prompt.messages[0]["content"] for prompt in prompts}


def test_only_validation_and_test_prompts_are_kept_from_the_writer(source: Path, tmp_path: Path) -> None:
    run = divided(tmp_path / "run", small(source))
    found = excluded(small(source, exclude=[str(run.path)]))
    assert len(found.evaluating) == 7
    assert len(found.ids) == len(found.texts) == 17


@pytest.mark.parametrize("made", [False, True], ids=["nothing there", "a run without prompts"])
def test_nothing_to_exclude_is_one_clear_error(source: Path, tmp_path: Path, made: bool) -> None:
    chosen = small(source, exclude=[str(tmp_path / "run")])
    if made:
        begin(tmp_path / "run", chosen)
    with pytest.raises(RecipeError, match="has not divided its prompts" if made else "is no file and no run"):
        excluded(chosen)
