"""What a stage declares, and which graphs are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gshf_release.errors import VerificationError
from gshf_release.run.stage import Input, Parameters, Stage, Task, check_graph, requirements, resolve, tasks
from tests.run.work import stage, write


class Drawing(Parameters):
    """Say how often what is drawn."""

    names: tuple[str, ...]
    count: int = 1


def test_parameters_come_back_from_json_as_they_were_declared() -> None:
    drawing = Drawing(names=("a", "b"))
    recorded = Stage.from_json(json.loads(json.dumps(stage("b", parameters=drawing.as_json()).as_json())))
    assert recorded.parameters == {"names": ["a", "b"], "count": 1}
    assert recorded.typed(Drawing) == drawing


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"count": 2}, "names: Field required"),
        ({"names": [], "count": "x"}, "count: Input should be a valid integer"),
        ({"names": [], "seed": 1}, "seed: Extra inputs are not permitted"),
    ],
)
def test_parameters_of_another_form_are_one_line(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(VerificationError, match=f"^b: the parameters in plan.json are none of this release's: {told}"):
        stage("b", parameters=parameters).typed(Drawing)


def test_a_declaration_survives_json() -> None:
    declared = stage("b", "a", keys=("seed",), parameters={"t": [1, 2]}, shards=3, numbers="m:f")
    assert Stage.from_json(json.loads(json.dumps(declared.as_json()))) == declared


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two stages are called a"):
        check_graph([stage("a"), stage("a")])


def test_an_input_must_come_from_an_earlier_stage() -> None:
    with pytest.raises(ValueError, match=r"b reads out\.json of a, which no stage puts out"):
        check_graph([stage("b", "a"), stage("a")])


def test_an_input_must_be_an_output() -> None:
    reader = Stage(name="b", work="m:f", inputs=(Input("a", "other.json"),))
    with pytest.raises(ValueError, match=r"b reads other\.json of a"):
        check_graph([stage("a"), reader])


def test_results_are_an_input_only_where_there_are_numbers() -> None:
    reader = Stage(name="b", work="m:f", inputs=(Input("a", "results"),))
    check_graph([stage("a", numbers="m:f"), reader])
    with pytest.raises(ValueError, match="b reads results of a"):
        check_graph([stage("a"), reader])


def test_shards_that_do_not_correspond_are_refused() -> None:
    with pytest.raises(ValueError, match="b and a differ in their number of shards"):
        check_graph([stage("a", shards=2), stage("b", "a", scope="shard", shards=3)])


def test_a_shard_needs_only_its_own_shard() -> None:
    a, b = stage("a", shards=2), stage("b", "a", scope="shard", shards=2)
    assert requirements(Task(b, 1), check_graph([a, b])) == [Task(a, 1)]


def test_a_whole_input_needs_every_shard() -> None:
    a, b = stage("a", shards=2), stage("b", "a")
    assert requirements(Task(b), check_graph([a, b])) == [Task(a, 0), Task(a, 1)]


def test_tasks_are_labelled_by_shard() -> None:
    assert [task.label for task in tasks([stage("a"), stage("b", shards=2)])] == ["a", "b 1/2", "b 2/2"]


def test_work_is_found_by_its_name() -> None:
    assert resolve("tests.run.work:write") is write
    with pytest.raises(TypeError, match="is not a function"):
        resolve("tests.run.work:FILE")
