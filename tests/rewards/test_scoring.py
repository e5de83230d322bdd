"""`reward score`: a file of answers in, the same rows with their rewards out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gshf_release.data.records import Message
from gshf_release.errors import DataError
from gshf_release.rewards import Inference
from gshf_release.rewards.ensemble import Scores
from gshf_release.rewards.scoring import AnsweredRow, read_answers, score_rows, summary
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from tests.conftest import Outcome

Command = Callable[..., Outcome]
ROWS = [{"prompt": f"why {number}?", "response": "the cat " * (number + 1), "id": number} for number in range(4)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def exact(tmp_path: Path) -> Path:
    path = tmp_path / "exact.yaml"
    path.write_text("inference_precision: fp32\nthreads: 1\nscoring_batch: 3\n", encoding="utf-8")
    return path


def expected(folder: Path, name: str) -> list[float]:
    model = SequenceClassificationReward.open(folder / name, Inference("rounded", batch=1))
    turns = [
        [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}] for row in ROWS
    ]
    return [float(value) for value in model.score(turns)]  # type: ignore[arg-type]


def test_rows_keep_what_they_had_and_gain_their_reward(
    command: Command, tiny_folder: Path, file: Path, exact: Path
) -> None:
    outcome = command("reward", "score", file, "--model", tiny_folder / "reward", "--profile", exact, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    written = [json.loads(line) for line in Path(found["scores"]).read_text(encoding="utf-8").splitlines()]
    assert [{name: row[name] for name in ROWS[0]} for row in written] == ROWS
    assert [row["reward"] for row in written] == pytest.approx(expected(tiny_folder, "reward"), abs=1e-5)
    assert found["mean"] == pytest.approx(sum(expected(tiny_folder, "reward")) / 4, abs=1e-5)
    assert found["n"] == 4
    assert Path(found["scores"]).name == "answers.scores.jsonl"


def test_parquet_in_and_out_with_an_ensemble(command: Command, tiny_folder: Path, exact: Path, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "answers.parquet")
    names = ("reward", "second-scorer")
    models = [part for name in names for part in ("--model", tiny_folder / name)]
    target = tmp_path / "deep" / "scored.parquet"
    outcome = command("reward", "score", tmp_path / "answers.parquet", *models, "--out", target, "--profile", exact)
    assert outcome.code == 0, outcome.err
    written = pq.read_table(target).to_pylist()
    one, other = (np.asarray(expected(tiny_folder, name)) for name in names)
    assert [row["reward"] for row in written] == pytest.approx((one + other) / 2, abs=1e-5)
    assert [row["reward_deviation"] for row in written] == pytest.approx(abs(one - other) / 2**0.5, abs=1e-5)
    assert "Standard deviation across 2 models" in outcome.out


def test_a_function_of_the_users_scores(
    command: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brevity_of_mine.py").write_text(
        "def score(turns):\n    return [-len(each[-1]['content']) for each in turns]\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = command("reward", "score", file, "--model", "python:brevity_of_mine:score", "--json")
    assert json.loads(outcome.out)["mean"] == -20  # 8, 16, 24 and 32 characters
    assert json.loads(outcome.out)["correlation_with_characters"] == pytest.approx(-1)


def test_a_bad_row_is_named_or_counted_as_asked(command: Command, tiny_folder: Path, file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8") + '{"prompt": "x"}\n', encoding="utf-8")
    outcome = command("reward", "score", file, "--model", tiny_folder / "reward")
    assert outcome.code == 1
    assert "answers.jsonl:5: expected an answer under 'response'" in outcome.line
    outcome = command("reward", "score", file, "--model", tiny_folder / "reward", "--on-bad-row", "skip")
    assert outcome.code == 0
    assert "4 answers: mean " in outcome.out
    assert "1 bad rows skipped" in outcome.out


def test_an_output_of_no_known_format_is_refused_before_anything_is_computed(command: Command, file: Path) -> None:
    outcome = command("reward", "score", file, "--model", "gone", "--out", "scores.csv")
    assert outcome.code == 1
    assert "scores.csv is neither .jsonl nor .parquet" in outcome.line


def test_the_input_is_not_overwritten(command: Command, file: Path) -> None:
    outcome = command("reward", "score", file, "--model", "gone", "--out", file)
    assert outcome.code == 1
    assert "would be overwritten by its own scores" in outcome.line


def test_a_pairwise_model_is_refused(command: Command, tiny_folder: Path, file: Path) -> None:
    outcome = command("reward", "score", file, "--model", tiny_folder / "tiny", "--kind", "pairwise")
    assert outcome.code == 1
    assert "has no score for one alone" in outcome.line


def test_the_summary_by_hand(file: Path) -> None:
    answers = read_answers(file).values
    found = summary(answers, Scores(np.asarray([1, 2, 3, 6], dtype=np.float32)))
    assert (found["mean"], found["p50"], found["minimum"], found["maximum"]) == (3, 2.5, 1, 6)
    assert found["standard_error"] == pytest.approx((14 / 3) ** 0.5 / 2)  # squares 4 + 1 + 0 + 9, three degrees
    assert found["correlation_with_characters"] == pytest.approx(8 / (14 * 5) ** 0.5)


def test_equal_rewards_have_no_correlation() -> None:
    answers = [AnsweredRow({}, [{"role": "assistant", "content": text}]) for text in ("a", "bb")]
    assert summary(answers, Scores(np.zeros(2, dtype=np.float32)))["correlation_with_characters"] is None


class Short:
    """Reads answers of at most ten characters."""

    def reads(self, conversation: list[Message]) -> bool:
        return len(conversation[-1]["content"]) <= 10

    def score(self, conversations: list[list[Message]]) -> Any:
        assert all(self.reads(conversation) for conversation in conversations)
        return np.asarray([len(conversation[-1]["content"]) for conversation in conversations], dtype=np.float32)


def test_a_conversation_too_long_for_the_model_is_a_bad_row(tmp_path: Path) -> None:
    """It is skipped and counted with its line, or stops the command with it."""
    file = tmp_path / "rows.jsonl"
    texts = ["short", "a good deal too long", "fine"]
    file.write_text("".join(json.dumps({"prompt": "why?", "response": text}) + "\n" for text in texts), "utf-8")
    left, scores = score_rows(Short(), read_answers(file), on_bad_row="skip")
    assert [entry.conversation[-1]["content"] for entry in left.values] == ["short", "fine"]
    assert list(scores.rewards) == [5, 4]
    assert len(left.bad) == 1
    assert "rows.jsonl:2: the conversation is too long" in left.bad[0]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: the conversation is too long"):
        score_rows(Short(), read_answers(file), on_bad_row="fail")
