"""Loop efficiency of journals written by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.planning import efficiency
from gshf_release.planning.efficiency import ITERATIONS, WHOLE, TimeShare, efficiency_lines, measure_efficiency
from gshf_release.run.stage import Stage

PLAN = [
    Stage("base", "m:adopt", kind="other"),
    Stage("iteration-1/samples", "m:w", shards=2, kind="sampling", part="iteration 1"),
    Stage("iteration-1/rewards", "m:w", shards=2, kind="scoring", part="iteration 1"),
    Stage("iteration-1/pairs", "m:w", kind="other", part="iteration 1"),
    Stage("iteration-1/policy", "m:w", kind="training", part="iteration 1"),
    Stage("iteration-1/validation/answers", "m:w", kind="sampling", part="iteration 1"),
    Stage("iteration-2/samples", "m:w", kind="sampling", part="iteration 2"),
    Stage("iteration-1/test/answers", "m:w", kind="sampling", part="evaluation"),
]


def begins(time: float, session: str = "a") -> dict[str, Any]:
    return {"time": time, "event": "command begins", "session": session}


def ends(time: float, session: str = "a") -> dict[str, Any]:
    return {"time": time, "event": "command ends", "session": session}


def started(time: float, stage: str) -> dict[str, Any]:
    return {"time": time, "event": "started", "stage": stage}


def finished(time: float, stage: str, seconds: float, **parts: float) -> dict[str, Any]:
    return {"time": time, "event": "finished", "stage": stage, "seconds": seconds, "parts": parts}


def seconds(row: TimeShare | None) -> dict[str, float]:
    """Return what is not zero."""
    assert row is not None
    return {name: pytest.approx(value) for name, value in row.seconds.items() if value}


ONE_AFTER_THE_OTHER = [
    begins(0),
    finished(10, "base", 8, hashing=3),
    finished(50, "iteration-1/samples 1/2", 40, loading=5, hashing=1),
    finished(90, "iteration-1/samples 2/2", 38, loading=4),
    finished(100, "iteration-1/rewards 1/2", 10, loading=2),
    finished(110, "iteration-1/rewards 2/2", 10, loading=2),
    finished(111, "iteration-1/pairs", 1, cells=0.25),
    finished(161, "iteration-1/policy", 50, loading=5, hashing=2),
    ends(164),
]


def test_the_shares_by_hand() -> None:
    """Two seconds before the base and two before the second shard lie between tasks; so do three at the end."""
    found = measure_efficiency(ONE_AFTER_THE_OTHER, PLAN)
    assert seconds(found.row("preparation")) == {"other work": 5, "hashing": 3, "between": 2}
    assert seconds(found.row("iteration 1")) == {
        "sampling": 34 + 34,
        "scoring": 8 + 8,
        "training": 43,
        "loading": 5 + 4 + 2 + 2 + 5,
        "hashing": 1 + 2,
        "cells": 0.25,
        "other work": 0.75,
        "between": 2 + 3,
    }
    loop, whole = found.row(ITERATIONS), found.row(WHOLE)
    assert loop is not None
    assert whole is not None
    assert (loop.wall, whole.wall) == (pytest.approx(154), pytest.approx(164))
    assert loop.efficiency == pytest.approx(127 / 154)
    assert whole.efficiency == pytest.approx(127 / 164)


def test_the_efficiency_of_the_loop_is_told() -> None:
    assert efficiency_lines(measure_efficiency(ONE_AFTER_THE_OTHER, PLAN))[-1] == "Loop efficiency 82.5 %."


def test_tasks_side_by_side_share_the_time() -> None:
    """Twenty seconds of samples, the last ten of them beside the validation of the iteration before."""
    journal = [
        begins(0),
        finished(20, "iteration-2/samples", 20),
        finished(20, "iteration-1/validation/answers", 10),
        ends(20),
    ]
    found = measure_efficiency(journal, PLAN)
    assert seconds(found.row("iteration 2")) == {"sampling": 15}
    assert seconds(found.row("iteration 1")) == {"sampling": 5}


def test_the_evaluation_is_no_part_of_the_loop() -> None:
    found = measure_efficiency([begins(0), finished(9, "iteration-1/test/answers", 9), ends(10)], PLAN)
    assert seconds(found.row("evaluation")) == {"sampling": 9, "between": 1}
    assert seconds(found.row(ITERATIONS)) == {}
    assert not any(line.startswith("Loop efficiency") for line in efficiency_lines(found))


def test_time_without_a_command_is_not_counted() -> None:
    journal = [begins(0), finished(9, "base", 9), ends(10), begins(1000, "b"), ends(1003, "b")]
    journal += [begins(5000, "c"), finished(5010, "iteration-2/samples", 8), ends(5010, "c")]
    found = measure_efficiency(journal, PLAN)
    assert seconds(found.row(WHOLE)) == {"other work": 9, "between": 1 + 2, "sampling": 8}


def test_an_attempt_that_was_stopped_is_time_of_the_loop() -> None:
    journal = [
        begins(0),
        started(1, "iteration-1/policy"),
        ends(11),
        begins(50, "b"),
        started(50, "iteration-1/policy"),
    ]
    journal += [finished(60, "iteration-1/policy", 10), ends(60, "b")]
    assert seconds(measure_efficiency(journal, PLAN).row("iteration 1")) == {
        "between": 1,
        "stopped": 10,
        "training": 10,
    }


def test_a_killed_command_ends_with_the_last_that_it_wrote() -> None:
    journal = [begins(0), finished(9, "base", 9), started(9, "iteration-1/policy"), begins(500, "b")]
    journal += [started(500, "iteration-1/policy"), finished(520, "iteration-1/policy", 20), ends(520, "b")]
    assert seconds(measure_efficiency(journal, PLAN).row(WHOLE)) == {"other work": 9, "training": 20}


def test_an_empty_journal_shows_nothing() -> None:
    assert efficiency_lines(measure_efficiency([], PLAN)) == []


def test_json_has_every_part() -> None:
    document = efficiency.as_json(measure_efficiency(ONE_AFTER_THE_OTHER, PLAN))
    assert list(document["parts"]) == ["preparation", "iteration 1", ITERATIONS, WHOLE]
    assert document["parts"][ITERATIONS]["efficiency"] == 0.8247


@given(
    st.lists(st.tuples(st.sampled_from(PLAN), st.floats(0, 1000), st.floats(0.01, 100), st.floats(0, 50)), min_size=1)
)
def test_the_rows_add_up_to_the_time_of_the_command(drawn: list[tuple[Stage, float, float, float]]) -> None:
    tasks = [finished(begin + length, stage.name, length, loading=part) for stage, begin, length, part in drawn]
    journal = [begins(-1), *sorted(tasks, key=lambda entry: entry["time"]), ends(2000)]
    found = measure_efficiency(journal, PLAN)
    whole = found.row(WHOLE)
    assert whole is not None
    assert whole.wall == pytest.approx(2001)
    assert all(value >= 0 for row in found.rows for value in row.seconds.values())
