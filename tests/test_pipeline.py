"""What the declared stages say of themselves: identity, kind, part, functions that exist, and an estimate."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import gshf_release
from gshf_release import pipeline
from gshf_release import recipe as recipes
from gshf_release.planning import costs
from gshf_release.prompts.split import PoolParameters, PromptFileParameters
from gshf_release.recipe.profile import Hardware, Profile
from gshf_release.release.recomputation import CELLS
from gshf_release.run.stage import Stage, resolve

SOURCES = sorted(Path(gshf_release.__file__).parent.rglob("*.py"))
FUNCTION = re.compile(r"gshf_release(\.\w+)+:\w+")
VARIANTS = [
    (),
    ("loop.algorithm=raft", "pairs.kl_weight=0.1"),
    ("pairs.source=hybrid", "pairs.offline=pairs.jsonl"),
    ("training.adapter={rank: 8}",),
]


def trained(*overrides: str) -> list[Stage]:
    chosen = recipes.load("quickstart", overrides)
    offline = PromptFileParameters(source_sha256="", count=8) if chosen.pairs.offline else None
    return pipeline.training(chosen, offline, PoolParameters(source_sha256="", count=1000))


def texts(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("overrides", VARIANTS)
def test_every_stage_of_training_has_an_identity_a_kind_and_an_estimate(overrides: tuple[str, ...]) -> None:
    stages = trained(*overrides)
    chosen = recipes.load("quickstart", overrides)
    tokens = costs.count(stages, chosen, 52, 48).tokens
    fast = Profile(hardware=Hardware(tokens_per_second=100, at_parameters=1e6, flops=1e9))
    hours = costs.stage_hours(stages, tokens, fast, 1e6, 1e6)
    for stage in stages:
        assert re.fullmatch(r"[a-z-]+/[1-9]\d*", stage.identity), stage.name
        assert stage.kind, stage.name
        assert (stage.name in hours) == (stage.kind != "other"), stage.name


def test_every_part_of_a_run_is_told_apart() -> None:
    graph = pipeline.build(recipes.load("quickstart", []))
    parts = {stage.name: stage.part for stage in graph.stages}
    assert parts["iteration-2/prompts"] == "preparation"
    assert parts["iteration-2/samples"] == parts["iteration-2/validation/measure"] == "iteration 2"
    assert parts["base/validation/answers"] == parts["reward/model"] == parts["final"] == "preparation"
    assert parts["iteration-2/test/answers"] == parts["second-scorer/model"] == "evaluation"
    assert {stage.part for stage in graph.release} == {"release"}


def test_every_declaration_in_the_package_names_identity_and_kind() -> None:
    """Also of the stages that no shipped recipe has: benchmarks, imports, adopted files."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Stage":
                given = {keyword.arg for keyword in node.keywords}
                assert given == {"work"} or {"work", "identity", "kind"} <= given, f"{path.name}:{node.lineno}"


def test_every_function_that_a_text_names_exists() -> None:
    named = {text for path in SOURCES for text in texts(path) if FUNCTION.fullmatch(text)}
    assert len(named) > 50
    for text in sorted(named):
        assert callable(resolve(text)), text


def test_no_two_works_share_an_identity() -> None:
    works = defaultdict(set)
    for overrides in VARIANTS:
        for stage in trained(*overrides):
            works[stage.identity].add(stage.work)
    assert {identity for identity, known in works.items() if len(known) > 1} == set()


def test_the_cells_of_every_stage_can_be_recomputed() -> None:
    stages = [*pipeline.build(recipes.load("quickstart", [])).stages, *trained(*VARIANTS[1]), *trained(*VARIANTS[2])]
    for stage in stages:
        if stage.numbers:
            assert CELLS[stage.identity] is resolve(stage.numbers), stage.name
        else:
            assert stage.identity not in CELLS, stage.name
