"""The division of prompts: disjoint, independent of the file's order and length, stable when iterations are added."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.data.records import Prompt
from gshf_release.data.results import find, read_cells
from gshf_release.errors import DataError, RecipeError
from gshf_release.external_files import evaluation_file, prompt_file
from gshf_release.prompts.split import (
    EvaluationPromptsParameters,
    PoolParameters,
    check_supply,
    declare_evaluation,
    declare_prompts,
    ordered,
    ranges,
    read_prompts,
    stage_name,
)
from gshf_release.run.directory import read_json
from gshf_release.run.execution import execute
from tests.run.plans import PROFILES, begin, recipe

POOL = [Prompt.of([{"role": "user", "content": f"question {number}"}]) for number in range(120)]
COUNTS = st.integers(1, 8)
SCORERS = st.integers(0, 8)


def pool_file(count: int) -> PoolParameters:
    """Return what is known of a file of so many prompts."""
    return PoolParameters(source_sha256="0" * 64, count=count)


def roles(iterations: int, **counts: int) -> Any:
    return recipe(prompts={"roles": counts}, loop={"iterations": iterations})


def slices(chosen: Any, prompts: list[Prompt], seed: int = 0) -> dict[str, list[str]]:
    ids = [prompt.prompt_id for prompt in ordered(prompts, seed)]
    return {role: ids[start:stop] for role, (start, stop) in ranges(chosen).items()}


@given(COUNTS, COUNTS, COUNTS, SCORERS, SCORERS, st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_no_prompt_serves_two_roles(
    each: int, validation: int, test: int, reward: int, second: int, rounds: int
) -> None:
    chosen = roles(rounds, per_iteration=each, validation=validation, test=test, reward=reward, second_scorer=second)
    found = slices(chosen, POOL)
    used = [prompt for role in found.values() for prompt in role]
    assert len(used) == len(set(used)) == validation + test + reward + second + rounds * each
    assert set(found) >= {"validation", "test", "reward", "second_scorer", f"iteration-{rounds}"}


@given(COUNTS, COUNTS, st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_more_iterations_move_no_prompt(each: int, test: int, rounds: int, more: int) -> None:
    few = slices(roles(rounds, per_iteration=each, validation=4, test=test), POOL)
    many = slices(roles(rounds + more, per_iteration=each, validation=4, test=test), POOL)
    assert {role: many[role] for role in few} == few


@given(st.randoms(use_true_random=False), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_file_does_not_matter(shuffle: random.Random, seed: int) -> None:
    shuffled = list(POOL)
    shuffle.shuffle(shuffled)
    assert ordered(shuffled, seed) == ordered(POOL, seed)


def test_more_prompts_leave_the_order_of_the_others() -> None:
    kept = {prompt.prompt_id for prompt in POOL[:60]}
    assert [prompt for prompt in ordered(POOL, 0) if prompt.prompt_id in kept] == ordered(POOL[:60], 0)


def test_another_seed_divides_otherwise() -> None:
    assert ordered(POOL, 0) != ordered(POOL, 1)


@given(st.lists(st.sampled_from(range(6)), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_duplicates_count_once(tmp_path_factory: Any, numbers: list[int]) -> None:
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q {number}"}) + "\n" for number in numbers), encoding="utf-8")
    found = [prompt.messages[0]["content"] for prompt in read_prompts(path)]
    assert found == [f"q {number}" for number in dict.fromkeys(numbers)]


def test_too_few_prompts_are_one_line_with_both_numbers() -> None:
    chosen = roles(2, per_iteration=10, validation=4, test=6)
    check_supply(chosen, 30)
    with pytest.raises(RecipeError) as caught:
        check_supply(chosen, 29)
    line = str(caught.value)
    assert "divides 30 prompts" in line
    assert "29 distinct ones" in line
    assert "\n" not in line


def test_a_roles_stage_is_named_after_it() -> None:
    assert [stage_name(role) for role in ("iteration-2", "second_scorer")] == [
        "iteration-2/prompts",
        "prompts/second-scorer",
    ]


def test_the_stages_write_the_slices(tmp_path: Path) -> None:
    source = tmp_path / "p.jsonl"
    source.write_text("".join(json.dumps({"messages": p.messages}) + "\n" for p in POOL), encoding="utf-8")
    counts = {"per_iteration": 5, "validation": 3, "test": 4}
    chosen = recipe(prompts={"source": str(source), "roles": counts}, loop={"iterations": 2})
    run = begin(tmp_path / "run", chosen)
    execute(declare_prompts(chosen, pool_file(len(POOL))), run, chosen, PROFILES["here"])
    for role, ids in slices(chosen, POOL).items():
        written = Prompt.read(run.path / stage_name(role) / "prompts.parquet")
        assert [prompt.prompt_id for prompt in written] == ids


def test_evaluation_prompts_that_are_in_the_pool_are_refused(tmp_path: Path) -> None:
    source, other = tmp_path / "p.jsonl", tmp_path / "e.jsonl"
    source.write_text(
        "".join(json.dumps({"prompt": f"question {number}"}) + "\n" for number in range(9)), encoding="utf-8"
    )
    other.write_text('{"prompt": "new"}\n{"prompt": "question 3"}\n', encoding="utf-8")
    counts = {"per_iteration": 2, "validation": 1, "test": 1}
    chosen = recipe(
        prompts={"source": str(source), "roles": counts},
        loop={"iterations": 1},
        evaluation={"prompts": str(other), "second_scorer": {"model": "s"}},
    )
    stages = [
        *declare_prompts(chosen, pool_file(9)),
        declare_evaluation(EvaluationPromptsParameters(source_sha256="1" * 64, count=2)),
    ]
    with pytest.raises(DataError, match=r"1 of 2 prompts are also in prompts.source .* the first: 'question 3'"):
        execute(stages, begin(tmp_path / "run", chosen), chosen, PROFILES["here"])


def pool_of(tmp_path: Path, source: Path, on_bad_row: str) -> Any:
    """Return the run whose pool was made from a source."""
    chosen = recipe(
        prompts={
            "source": str(source),
            "on_bad_row": on_bad_row,
            "roles": {"per_iteration": 1, "validation": 1, "test": 1},
        },
        loop={"iterations": 1},
    )
    run = begin(tmp_path / "run", chosen)
    execute(declare_prompts(chosen, pool_file(9)), run, chosen, PROFILES["here"])
    return run


def test_bad_rows_are_fatal_or_skipped_and_counted_as_the_recipe_says(tmp_path: Path) -> None:
    source = tmp_path / "p.jsonl"
    rows = [f'{{"prompt": "question {number}"}}' for number in range(9)]
    source.write_text("\n".join([*rows, "{not json", '{"prompt": 3}']) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"p\.jsonl:10: "):
        pool_of(tmp_path / "fail", source, "fail")
    run = pool_of(tmp_path / "skip", source, "skip")
    assert len(Prompt.read(run.path / "prompts" / "pool" / "prompts.parquet")) == 9
    bad = read_json(run.path / "prompts" / "pool" / "bad-rows.json")
    assert (bad["count"], bad["first"][1].split(": ")[0]) == (2, "p.jsonl:11")
    assert find(read_cells(run.path / "results.json"), metric="bad rows skipped").value == 2  # type: ignore[union-attr]


def test_a_parquet_file_and_a_data_sets_folder_are_sources_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    pq.write_table(
        pa.table({"prompt": [f"question {number}" for number in range(9)]}), folder / "train-00000-of-00001.parquet"
    )
    assert len(read_prompts(folder / "train-00000-of-00001.parquet")) == len(read_prompts(tmp_path / "set")) == 9
    assert pool_of(tmp_path, tmp_path / "set", "fail").path.is_dir()


GOOD, BAD = '{"prompt": "one"}\n', b'{"prompt": "\xff"}\n{not json\n'


def with_evaluation(tmp_path: Path, on_bad_row: str, **prompts: Any) -> Any:
    """Return the recipe and the first stages of a run whose evaluation prompts and excluded prompts have bad rows."""
    source, evaluation, excluded = tmp_path / "p.jsonl", tmp_path / "e.jsonl", tmp_path / "x.jsonl"
    source.write_text("".join(f'{{"prompt": "question {number}"}}\n' for number in range(9)), encoding="utf-8")
    evaluation.write_bytes(GOOD.encode() + BAD)
    excluded.write_bytes(b'{"prompt": "question 3"}\n' + BAD)
    chosen = recipe(
        prompts={
            "source": str(source),
            "on_bad_row": on_bad_row,
            "roles": {"per_iteration": 1, "validation": 1, "test": 1},
            **{key: [str(excluded)] for key in prompts},
        },
        loop={"iterations": 1},
        evaluation={"prompts": str(evaluation), "second_scorer": {"model": "s"}},
    )
    pool = declare_prompts(chosen, prompt_file(chosen, None))
    return chosen, [*pool, declare_evaluation(evaluation_file(chosen, None))]


@pytest.mark.parametrize(("prompts", "place"), [({}, r"e\.jsonl:2"), ({"exclude": True}, r"x\.jsonl:2")])
def test_a_bad_row_anywhere_is_fatal_with_the_way_to_skip_it(
    tmp_path: Path, prompts: dict[str, Any], place: str
) -> None:
    with pytest.raises(DataError, match=f"{place}: byte 13 of the line is not UTF-8") as caught:
        with_evaluation(tmp_path, "fail", **prompts)
    assert "--on-bad-row skip (prompts.on_bad_row: skip in the recipe)" in caught.value.hint


def test_bad_rows_of_evaluation_and_excluded_prompts_are_skipped_and_counted(tmp_path: Path) -> None:
    chosen, stages = with_evaluation(tmp_path, "skip", exclude=True)
    run = begin(tmp_path / "run", chosen)
    execute(stages, run, chosen, PROFILES["here"])
    assert len(Prompt.read(run.path / "prompts" / "eval" / "prompts.parquet")) == 1
    assert len(Prompt.read(run.path / "prompts" / "pool" / "prompts.parquet")) == 8
    cells = read_cells(run.path / "results.json")
    found = {(cell.row, cell.metric): cell.value for cell in cells if "bad" in cell.metric}
    assert found == {
        ("prompts", "bad rows skipped in prompts.exclude"): 2,
        ("evaluation prompts", "bad rows skipped"): 2,
    }
