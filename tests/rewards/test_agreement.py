"""Agreement with a judge against hand calculations, and on real GPT-4 judgments where they are at hand."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.data.records import Message
from gshf_release.data.results import Cell, find
from gshf_release.errors import DataError
from gshf_release.rewards import Duel, Inference
from gshf_release.rewards.agreement import (
    JudgedComparison,
    cells,
    margins,
    parse_judgment,
    read_judgments,
    sample,
    usable,
)
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from tests import tiny
from tests.conftest import Outcome


class Longer:
    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        return np.asarray([len(turns[-1]["content"]) for turns in conversations], dtype=np.float32)


class LongerOfTwo:
    def prefer_all(self, duels: Sequence[Duel]) -> npt.NDArray[np.float32]:
        return np.asarray([len(a) / (len(a) + len(b)) for _, a, b in duels], dtype=np.float32)


def judged(instruction: str, first: str, second: str, preference: float, source: str = "x") -> JudgedComparison:
    return JudgedComparison(instruction, first, second, preference, source)


def value(found: list[Cell], metric: str) -> float:
    entry = find(found, metric=metric)
    assert entry is not None
    assert entry.value is not None
    return entry.value


FOUR = [
    judged("p", "aa", "a", 1.1, "x"),  # the first wins, and is longer
    judged("q", "aa", "a", 1.2, "x"),  # the same
    judged("r", "a", "aa", 1.4, "y"),  # the first wins, and is shorter
    judged("s", "a", "aa", 1.9, "y"),  # the second wins, and is longer
]


def test_agreement_and_its_baselines_by_hand() -> None:
    found = cells(FOUR, [-1.0, 2.0, 0.0, 3.0], row="mine", judge="somebody")
    # right, wrong, tied, right: 2.5 / 4
    assert value(found, "agreement") == 62.5
    # the first wins three times: (1 + 0 + 0.5) / 3 = 0.5; the second once: 1
    assert value(found, "balanced agreement") == 75
    assert value(found, "length only: agreement") == 75
    assert value(found, "length only: balanced agreement") == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert value(found, "agreement above length only") == -12.5
    assert value(found, "more frequent side") == 75
    assert value(found, "agreement: x") == 50
    assert value(found, "agreement: y") == 75
    assert find(found, metric="agreement on length-matched pairs") is None


def test_standard_errors_by_hand() -> None:
    found = cells(FOUR, [-1.0, 2.0, 0.0, 3.0], row="mine", judge="somebody")
    entry, balanced = find(found, metric="agreement"), find(found, metric="balanced agreement")
    assert entry is not None
    assert balanced is not None
    # residuals 3/8, -5/8, -1/8, 3/8: sqrt(4/3 * 44/64) / 4
    assert entry.standard_error == pytest.approx(100 * math.sqrt(4 / 3 * 44 / 64) / 4)
    # influences (1 - 1/2)/6, (0 - 1/2)/6, 0 and 0: sqrt(4/3 * 2 / 144)
    assert balanced.standard_error == pytest.approx(100 * math.sqrt(4 / 3 * 2 / 144))


def test_judgments_of_one_instruction_are_one_cluster() -> None:
    rows = [judged(name, "a", "b", 1.1) for name in "pqrs" for _ in range(9)]
    preferred = [-1.0 if row.instruction in "pq" else 1.0 for row in rows]
    entry = find(cells(rows, preferred, row="mine", judge="j"), metric="agreement")
    assert entry is not None
    assert entry.standard_error == pytest.approx(100 * 0.5 / math.sqrt(3))  # four prompts, not 36 judgments


@given(st.lists(st.tuples(st.sampled_from([1.2, 1.8]), st.integers(1, 3)), min_size=2, max_size=30))
@settings(max_examples=40, deadline=None)
def test_a_constant_answer_has_a_balanced_agreement_of_one_half(drawn: list[tuple[float, int]]) -> None:
    rows = [judged(f"p{number % 5}", "a", "b" * length, side) for number, (side, length) in enumerate(drawn)]
    found = cells(rows, [1.0] * len(rows), row="always the second", judge="j")
    if len({side for side, _ in drawn}) == 2:
        assert value(found, "balanced agreement") == 50
    assert max(value(found, "agreement"), 100 - value(found, "agreement")) == pytest.approx(
        value(found, "more frequent side")
    )


def test_what_takes_no_side_is_left_out_and_counted(tiny_folder: Path) -> None:
    model = SequenceClassificationReward.open(tiny_folder / "reward", Inference())
    rows = [
        judged("p", "a", "b", 1.5),
        judged("q", "a", " a\n", 1.2),
        judged("r", "a", "the cat " * 300, 1.2),
        judged("s", "a", "b", 1.2),
    ]
    kept = usable(model, rows)
    assert kept.judged == rows[3:]
    assert kept.left_out == {"judge's tie": 1, "identical answers": 1, "too long": 1}


def test_nothing_to_compare_with_is_one_line() -> None:
    with pytest.raises(DataError, match=r"No judgment is left to compare with: .*\"?judge's tie\"?: 1"):
        usable(Longer(), [judged("p", "a", "b", 1.5)])


def test_scores_and_preferences_give_the_same_sides() -> None:
    assert margins(Longer(), FOUR) == [-1, -1, 1, 1]
    assert margins(LongerOfTwo(), FOUR) == pytest.approx([-1 / 6, -1 / 6, 1 / 6, 1 / 6])


def test_a_sample_depends_on_the_texts_and_the_seed_alone() -> None:
    rows = [judged(f"p{number % 20}", "a", "b", 1.2, str(number)) for number in range(60)]
    drawn = sample(rows, 5, 0)
    assert len({row.instruction for row in drawn}) == 5
    assert len(drawn) == 15
    assert set(sample(rows[::-1], 5, 0)) == set(drawn)
    assert set(sample(rows, 5, 1)) != set(drawn)
    assert sample(rows, None, 0) == rows


def row(**changes: Any) -> dict[str, Any]:
    return {"instruction": "p", "output_1": "a", "output_2": "b", "preference": "1.02", "generator_2": "x"} | changes


def test_a_judgment_is_read_as_it_is_stored() -> None:
    assert parse_judgment(row()) == judged("p", "a", "b", 1.02)
    assert parse_judgment(row(preference=0)).preference == 1.5
    assert parse_judgment(row(output_2="")).second == ""


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(preference=None), 'expected a number under "preference"'),
        (row(preference="nan"), "the preference nan is not between 1 and 2"),
        (row(preference=3), "the preference 3 is not between 1 and 2"),
        (row(output_1=None), "expected texts"),
        (row(instruction=" "), "expected texts"),
    ],
)
def test_a_judgment_that_is_none(bad: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_judgment(bad)


def test_the_command_compares_a_function_with_judgments(
    command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "longer_is_better.py").write_text(
        "def score(turns):\n    return [len(each[-1]['content']) for each in turns]\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = [entry._asdict() for entry in [*FOUR, judged("t", "a", "b", 1.5)]]
    names = {"first": "output_1", "second": "output_2", "source": "generator_2"}
    stored = [{names.get(name, name): value for name, value in entry.items()} for entry in rows]
    path = tmp_path / "annotations.json.gz"
    path.write_bytes(gzip.compress(json.dumps(stored).encode()))
    arguments = ["reward", "agreement", path, "--model", "python:longer_is_better:score"]
    outcome = command(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert (told["judgments"], told["compared"], told["left_out"]["judge's tie"]) == (5, 4, 1)
    assert next(entry for entry in told["results"] if entry["metric"] == "agreement")["value"] == 75
    shown = command(*arguments).out
    assert "4 of 5 judgments compared; left out: 1 judge's tie; 0 bad rows" in shown
    assert "agreement above length only" in shown


def test_real_judgments_of_gpt_4(test_data: Path, tmp_path: Path, one_thread: None) -> None:
    path = test_data / "alpaca_eval" / "annotations" / "FuseChat-Llama-3.2-1B-Instruct.json.gz"
    if not path.is_file():
        pytest.skip(f"the AlpacaEval annotations are not at {path}; set GSHF_TEST_DATA")
    rows = read_judgments([path]).values
    assert len(rows) == 805
    kept = usable(Longer(), rows)
    assert kept.left_out["judge's tie"] == 2
    found = cells(kept.judged, margins(Longer(), kept.judged), row="longer", judge="GPT-4 Turbo")
    assert value(found, "agreement") == value(found, "length only: agreement")
    assert value(found, "agreement above length only") == 0
    assert 50 < value(found, "balanced agreement") < 65
    folder = tiny.save_reward_model(tmp_path / "random", max_position_embeddings=1500)
    model = SequenceClassificationReward.open(folder, Inference())
    few = usable(model, sample(rows, 40, 0))
    assert few.left_out["too long"] > 0
    random = cells(few.judged, margins(model, few.judged), row="random", judge="GPT-4 Turbo")
    entry = find(random, metric="balanced agreement")
    assert entry is not None
    assert entry.value is not None
    assert entry.standard_error is not None
    assert abs(entry.value - 50) < 4 * entry.standard_error, "a random model agrees by chance"


def test_judgments_on_another_scale_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [{"instruction": "Why?", "output_1": "So.", "output_2": "No.", "preference": value} for value in (0, 1, 1)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError, match="its preferences are 0 and 1; they must go from 1"):
        read_judgments([path])
    path.write_text(json.dumps([*rows, rows[0] | {"preference": 2}]), encoding="utf-8")
    assert [row.preference for row in read_judgments([path]).values] == [1.5, 1.0, 1.0, 2.0]
