"""adopt: what other tools left behind becomes a run, with every row and without a claim about where it came from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gshf_release
from gshf_release.adoption.rows import kind_of
from gshf_release.adoption.run import AdoptedRow
from gshf_release.data.hashing import canonical_json
from tests.conftest import Outcome
from tests.release import made

TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "preference pair": [
        {"chosen": TURNS, "rejected": TURNS, "chosen_score": 1.0, "rejected_score": 0.5},
        {"prompt": "Why?", "prompt_id": "a", "all_rm_scores": [1.0], "all_generated_responses": ["So."]}
        | {"chosen": TURNS, "rejected": TURNS},
    ],
    "scored responses": [{"prompt": "Why?", "responses": ["So."], "rewards": [0.25]}],
    "alpaca_eval output": [{"instruction": "Why?", "output": "So.", "generator": "mine", "dataset": "own"}],
    "alpaca_eval annotation": [
        {"instruction": "Why?", "output_1": "So.", "output_2": "No.", "preference": 1.5, "annotator": "judge"}
    ],
    "conversation": [{"messages": TURNS, "source": "x"}, {"prompt": "Why?", "response": "So."}],
    "prompt": [{"prompt": "Why?"}, {"context_messages": TURNS[:1]}, {"system": "Be brief.", "question": "Why?"}],
    "FastChat answer": [{"question_id": 1, "model_id": "mine", "choices": [{"index": 0, "turns": ["So."]}]}],
    "FastChat judgment": [{"question_id": 1, "model": "mine", "judge": ["gpt", "single"], "score": 7, "turn": 1}],
    "FastChat pairwise judgment": [
        {"question_id": 1, "model_1": "mine", "model_2": "base", "g1_winner": "tie", "g2_winner": "tie", "turn": 1}
    ],
}


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("kind", "row"), [(kind, row) for kind, rows in ROWS.items() for row in rows])
def test_every_kind_is_known_by_its_keys(kind: str, row: dict[str, Any]) -> None:
    assert kind_of(row) == kind


def test_a_row_of_no_kind_is_kept_with_the_reason(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    source = lines(tmp_path / "pairs.jsonl", [*ROWS["preference pair"], {"text": "alone"}, [1, 2]])
    with source.open("a", encoding="utf-8") as stream:
        stream.write("{broken\n")
    outcome = command("adopt", source, "--run", tmp_path / "run", "--json")
    assert json.loads(outcome.out) == [
        {"stage": "adopted/01-pairs.jsonl", "kind": "preference pair", "rows": 2, "rest": 3}
    ]
    folder = tmp_path / "run" / "adopted" / "01-pairs.jsonl"
    rest = [json.loads(line) for line in (folder / "rest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["place"] for entry in rest] == ["pairs.jsonl:3", "pairs.jsonl:4", "pairs.jsonl:5"]
    assert rest[0]["reason"] == "no known kind of row has the keys text"
    assert (folder / "files" / "pairs.jsonl").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"chosen": TURNS, "rejected": TURNS, "prompt": "How?"},
            "it has the keys of the kind 'preference pair', but 'chosen'",
        ),
        ({"chosen": TURNS, "rejected": TURNS, "tools": [1]}, "the column 'tools' cannot be read"),
        ({"instruction": "Why?", "output": "So.", "images": ["x"]}, "the column 'images' cannot be read"),
        ({"messages": [TURNS[0] | {"tool_calls": [1]}, TURNS[1]]}, "has 'tool_calls', which cannot be read"),
    ],
)
def test_a_row_that_would_lose_something_is_of_no_kind(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        kind_of(row)


def test_columns_of_unknown_meaning_are_named_once_a_file(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    rows = [{"instruction": "Why?", "output": "So.", "generator": "me", "judge_notes": "good"}] * 2
    source = lines(tmp_path / "o.jsonl", [*rows, *ROWS["preference pair"]])
    outcome = command("adopt", source, "--run", tmp_path / "run")
    assert outcome.err.count("Note: ") == 1
    assert "columns kept whose meaning is not known: judge_notes (in 2 of 4 rows)." in outcome.err


def test_a_file_with_a_byte_order_mark_and_half_a_character_is_adopted(
    tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    source = tmp_path / "o.json"
    rows = [ROWS["alpaca_eval output"][0] | {"output": "half \ud83d"}, ROWS["alpaca_eval output"][0]]
    source.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows).encode())
    outcome = command("adopt", source, "--run", tmp_path / "run")
    assert "2 rows (alpaca_eval output), 0 of no known kind" in outcome.out
    assert "half a character" in outcome.err
    (folder,) = (tmp_path / "run" / "adopted").iterdir()
    assert [json.loads(row.content)["output"] for row in AdoptedRow.read(folder / "rows.parquet")] == [
        "half \ufffd",
        "So.",
    ]
    assert (folder / "files" / "o.json").read_bytes() == source.read_bytes()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(rows=st.lists(st.sampled_from([row for rows in ROWS.values() for row in rows]) | JSON, min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_no_row_is_lost(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    from gshf_release.adoption.run import adopt_files

    folder = tmp_path_factory.mktemp("adopt")
    (folder / "data").mkdir()
    (folder / "data" / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (found,) = adopt_files([folder / "data"], folder / "run", "adopted")
    stored = AdoptedRow.read(folder / "run" / found.stage / "rows.parquet")
    rest = (folder / "run" / found.stage / "rest.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    contents = [row.content for row in stored] + [
        canonical_json(json.loads(json.loads(line)["content"])) for line in rest
    ]
    assert sorted(contents) == sorted(canonical_json(row) for row in rows)
    assert {row.provenance for row in stored} <= {"unknown"}


def test_an_adopted_run_is_verified_but_claims_no_lineage(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    checkpoint = made.checkpoint(tmp_path / "checkpoint-500")
    (checkpoint / "optimizer.pt").write_bytes(b"\x80\x04")
    data = lines(tmp_path / "alpaca" / "model_outputs.jsonl", ROWS["alpaca_eval output"]).parent
    run = tmp_path / "run"
    assert "1 rows (alpaca_eval output), 0 of no known kind" in command("adopt", checkpoint, data, "--run", run).out
    assert not list(run.rglob("optimizer.pt"))
    provenance = json.loads((run / "adopted" / "01-checkpoint-500" / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["provenance"] == "unknown"
    assert command("verify", run).code == 0
    assert "where its responses came from is not known" in command("verify", run, "--lineage").line
    path = run / "adopted" / "02-alpaca" / "files" / "model_outputs.jsonl"
    path.write_bytes(path.read_bytes() + b" ")
    outcome = command("verify", run)
    assert outcome.code == 3
    assert "adopted/02-alpaca/files/model_outputs.jsonl" in outcome.line


def test_a_run_that_is_there_is_not_overwritten(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    source = lines(tmp_path / "pairs.jsonl", ROWS["preference pair"])
    command("adopt", source, "--run", tmp_path / "run")
    assert "is a run already" in command("adopt", source, "--run", tmp_path / "run").line
    assert "does not exist" in command("adopt", tmp_path / "none", "--run", tmp_path / "other").line


def test_what_needs_a_training_of_its_own_names_the_checkpoint_to_take(
    tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    command("adopt", made.checkpoint(tmp_path / "mine"), "--run", tmp_path / "run")
    model = tmp_path / "run" / "adopted" / "01-mine" / "model"
    wanted = {
        ("eval", tmp_path / "run"): f"gshf-release eval {model} --benchmark NAME",
        ("quantize", tmp_path / "run", "--to", "gguf:Q8_0"): f"gshf-release quantize {model} --text FILE --to SCHEME",
    }
    for arguments, instead in wanted.items():
        outcome = command(*arguments)
        assert outcome.code == 1
        assert "it has no iterations of its own" in outcome.line
        assert instead in outcome.line


def test_publishing_an_adopted_run_names_the_checkpoint_to_publish(
    tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    command("adopt", made.checkpoint(tmp_path / "mine"), "--run", tmp_path / "run")
    outcome = command("publish", tmp_path / "run", "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "was adopted from other tools" in outcome.line
    assert f"gshf-release publish {tmp_path / 'run' / 'adopted' / '01-mine' / 'model'} --facts" in outcome.line
    assert not (tmp_path / "out").exists()
    assert "it has no iterations of its own" in command("card", tmp_path / "run").line, "no recipe made it"


def test_annotations_on_another_scale_are_adopted_with_a_warning(
    tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    source, run = tmp_path / "a.jsonl", tmp_path / "run"
    row = {"instruction": "Why?", "output_1": "So.", "output_2": "No."}
    source.write_text("".join(json.dumps(row | {"preference": value}) + "\n" for value in (0, 1)), encoding="utf-8")
    outcome = command("adopt", source, "--run", run)
    assert outcome.code == 0
    assert "2 rows (alpaca_eval annotation)" in outcome.out
    assert "its preferences are 0 and 1; AlpacaEval's go from 1" in outcome.err


KILLED = """
import os, signal, sys
from pathlib import Path
from gshf_release.adoption import run as adoption
def die(*arguments, **options): os.kill(os.getpid(), signal.SIGKILL)
setattr(adoption, sys.argv[3], die)
adoption.adopt_files([Path(sys.argv[1])], Path(sys.argv[2]), "run")
"""


@pytest.mark.parametrize("at", ["_adopt", "_data", "write_manifest"])
def test_an_adoption_that_was_killed_is_begun_anew_and_opens_as_no_run(
    tmp_path: Path, command: Callable[..., Outcome], at: str
) -> None:
    source, run = lines(tmp_path / "pairs.jsonl", ROWS["preference pair"]), tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", KILLED, source, run, at], check=False, env=with_package())
    assert killed.returncode == -signal.SIGKILL
    if (run / "run.json").exists():
        assert "is half an adoption. The same adopt command again makes it whole." in command("verify", run).line
    assert command("adopt", source, "--run", run).code == 0
    assert command("verify", run).code == 0


def test_an_adoption_that_fails_leaves_nothing(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds neither" in command("adopt", tmp_path / "empty", "--run", tmp_path / "run").line
    assert not (tmp_path / "run").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    source = lines(tmp_path / "pairs.jsonl", ROWS["preference pair"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine", encoding="utf-8")
    assert "is not a run directory" in command("adopt", source, "--run", tmp_path / "run").line
    assert (tmp_path / "run" / "thesis.txt").read_text(encoding="utf-8") == "mine"


def with_package() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(gshf_release.__file__).parents[1])}
