"""docs/walkthrough.md names files, functions, stages, outputs and columns as they are."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gshf_release import pipeline
from gshf_release import recipe as recipes
from gshf_release.data import records
from gshf_release.data.results import Cell
from gshf_release.run.stage import Stage
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "walkthrough.md").read_text(encoding="utf-8")
STEPS = TEXT.split("\n## ")[1:]
MODULE = re.compile(r"`([\w/]+\.py)`")
FUNCTIONS = re.compile(r"`([\w/]+\.py)`:\s((?:`\w+`(?:,\s|\sand\s)?)+)")
"""The pattern of a function, or of several of one file: `path.py`: `function`, `function`."""
FOLDER = re.compile(r"`([\w/-]+)/`")
OUTPUTS = re.compile(r"^- `([\w/-]+)/`: (.+)$", re.MULTILINE)
ROW = re.compile(r"`(\w+)`[^`]*\n\n```json\n(.+?)\n```", re.DOTALL)
NOT_STAGES = {"results"}


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return {stage.name: stage for stage in pipeline.build(recipes.load("stand-in", ())).stages}


def named_functions(text: str) -> Iterator[tuple[str, str]]:
    for path, names in FUNCTIONS.findall(text):
        yield from ((path, name) for name in re.findall(r"`(\w+)`", names))


def defined(path: Path) -> set[str]:
    found = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in found if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_every_module_exists() -> None:
    modules = set(MODULE.findall(TEXT))
    assert len(modules) > 30
    assert {path for path in modules if not (REPOSITORY / path).is_file()} == set()


def test_every_function_is_in_its_module() -> None:
    functions = set(named_functions(TEXT))
    assert len(functions) > 40
    assert {(path, name) for path, name in functions if name not in defined(REPOSITORY / path)} == set()


def test_every_folder_is_a_stage(stages: dict[str, Stage]) -> None:
    assert set(FOLDER.findall(TEXT)) - NOT_STAGES - stages.keys() == set()


def test_every_stage_is_listed_with_its_outputs(stages: dict[str, Stage]) -> None:
    listed = {name: tuple(re.findall(r"`(.+?)`", files)) for name, files in OUTPUTS.findall(TEXT)}
    assert len(listed) > 25
    assert listed == {name: stages[name].outputs for name in listed}


def test_every_step_names_the_work_of_its_stages(stages: dict[str, Stage]) -> None:
    for step in STEPS:
        named = {f"{path.removesuffix('.py').replace('/', '.')}:{name}" for path, name in named_functions(step)}
        work = {stages[name].work for name, _ in OUTPUTS.findall(step)}
        assert work - named == set(), step.splitlines()[0]


def test_every_row_has_the_columns_of_its_type() -> None:
    rows = [(name, set(json.loads(row))) for name, row in ROW.findall(TEXT)]
    assert [name for name, _ in rows] == ["Sample", "Pair", "Cell"]
    for name, columns in rows:
        if name == "Cell":
            assert columns <= Cell.model_fields.keys()
        else:
            assert columns == {field.name for field in dataclasses.fields(getattr(records, name))}
