"""`gshf-release eval` from the command line to the cells: the tiny model, benchmarks of our own, a judge over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.hashing import sha256_file
from gshf_release.data.records import Sample
from gshf_release.data.results import find, select
from gshf_release.evaluation.metrics import doubt
from gshf_release.evaluation.verdicts.reading import LAST_COUNTS, THOUGHT
from gshf_release.run import execution
from gshf_release.run.directory import RunDirectory
from tests.conftest import PUBLISHED_DATA, REPOSITORY
from tests.end_to_end.judged import Command, cells_of, one_at_a_time
from tests.evaluation import own
from tests.servers.chat import ChatServer, Fault
from tests.servers.chat.server import always


def test_a_model_answers_is_judged_and_measured(evaluate: Command, tmp_path: Path, command: Command) -> None:
    outcome = evaluate()
    assert outcome.code == 0, outcome.err
    run = tmp_path / "run"
    rows = json.loads((run / "tiny/own-alpaca/answers/model_outputs.json").read_text(encoding="utf-8"))
    assert [row["instruction"] for row in rows] == list(own.INSTRUCTIONS)
    assert {(row["generator"], row["dataset"]) for row in rows} == {("tiny", "own")}
    (file,) = run.glob("tiny/own-alpaca/*/judgments/annotations.json")
    judged = json.loads(file.read_text(encoding="utf-8"))
    wins = sum(len(row["output_2"]) > len(row["output_1"]) for row in judged)
    cell = find(cells_of(run), table="own-alpaca", row="tiny", metric="win rate")
    assert cell is not None
    assert (cell.n, cell.decoding, cell.judge, cell.baseline) == (5, "T=0.7", "own-alpaca-eval-2/stub", "own_baseline")
    assert cell.value == pytest.approx(100 * wins / 5)
    assert "own-alpaca, judged by own-alpaca-eval-2/stub against own_baseline" in outcome.out
    verified = command("verify", run)
    assert verified.code == 0, verified.err
    assert "numbers come out as recorded" in verified.out
    assert "finished" in command("status", run).out


def test_the_first_prompt_is_shown_and_kept(evaluate: Command, tmp_path: Path) -> None:
    outcome = evaluate("--template", "fastchat:zephyr")
    kept = json.loads((tmp_path / "run/benchmarks/own-alpaca/rendering/prompt.json").read_text(encoding="utf-8"))
    asked = f"<|system|>\n</s>\n<|user|>\n{own.INSTRUCTIONS[0]}</s>\n<|assistant|>\n"
    assert kept["text"] == asked
    assert "  | <|system|>\n  | </s>\n  | <|user|>\n" in outcome.err
    (sample, *_) = Sample.read(tmp_path / "run/tiny/own-alpaca/turn-1/samples.parquet")
    assert sample.prompt_ids == kept["ids"]


def test_another_judge_makes_no_new_answers_and_leaves_the_first_ones_cells(evaluate: Command, tmp_path: Path) -> None:
    assert evaluate().code == 0
    answers = tmp_path / "run/tiny/own-alpaca/answers/manifest.json"
    before = answers.stat().st_mtime_ns
    first = select(cells_of(tmp_path / "run"), judge="own-alpaca-eval-2/stub")
    assert evaluate(name="second").code == 0
    assert answers.stat().st_mtime_ns == before
    cells = cells_of(tmp_path / "run")
    assert select(cells, judge="own-alpaca-eval-2/stub") == first
    assert len(select(cells, judge="second/stub")) == len(first) > 4


def test_the_same_command_again_asks_nobody(evaluate: Command, server: ChatServer) -> None:
    assert evaluate().code == 0
    asked = len(server.received)
    assert evaluate().code == 0
    assert len(server.received) == asked


def test_a_finished_judge_is_asked_again_about_everything_when_told_to(
    evaluate: Command, server: ChatServer, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "REDO_LIMIT_SECONDS", 0.0)  # however long it took, the user has asked for it
    assert evaluate().code == 0
    asked = len(server.received)
    server.answer = lambda body: "M"
    outcome = evaluate("--ask-again", "all")
    assert outcome.code == 0, outcome.err
    assert len(server.received) == 2 * asked
    other = evaluate(run=tmp_path / "other")
    assert len(server.received) == 2 * asked, "the cached judgments were replaced"
    assert f"{asked} of {asked} judgments from the cache" in other.err
    once_more = evaluate()
    assert len(server.received) == 2 * asked
    assert "/judgments: finished before, 0 judgments asked; --ask-again" in once_more.err
    assert command("verify", tmp_path / "run").code == 0


def test_a_finished_judge_is_asked_again_about_what_failed(
    evaluate: Command, server: ChatServer, tmp_path: Path
) -> None:
    healthy = server.answer
    server.answer = lambda body: "?" if own.INSTRUCTIONS[1] in str(body) else healthy(body)
    assert evaluate(failed_share=0.5).code == 0
    asked = len(server.received)
    failed = find(cells_of(tmp_path / "run"), metric="failed judgments")
    assert failed is not None
    assert failed.value == 1
    assert "finished before, 0 judgments asked, 1 had failed and count as missing;" in evaluate(failed_share=0.5).err
    server.answer = healthy
    assert evaluate("--ask-again", "failed", failed_share=0.5).code == 0
    assert len(server.received) == asked + 1
    mended = find(cells_of(tmp_path / "run"), metric="failed judgments")
    assert mended is not None
    assert mended.value == 0


def test_the_models_that_judged_are_in_the_results(evaluate: Command, server: ChatServer, tmp_path: Path) -> None:
    assert evaluate().code == 0
    cell = find(cells_of(tmp_path / "run"), metric="answered by stub")
    assert cell is not None
    assert cell.value == len(server.received)


def test_another_run_of_the_same_answers_pays_nothing(evaluate: Command, server: ChatServer, tmp_path: Path) -> None:
    assert evaluate(run=tmp_path / "one").code == 0
    asked = len(server.received)
    assert evaluate(run=tmp_path / "other").code == 0
    assert len(server.received) == asked
    for file in ("results.json", "results.csv", "tiny/own-alpaca/answers/model_outputs.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_a_limit_is_asked_alone_and_noted(evaluate: Command, server: ChatServer, tmp_path: Path) -> None:
    outcome = evaluate("--limit", 2)
    assert outcome.code == 0
    cell = find(cells_of(tmp_path / "run"), metric="win rate")
    assert cell is not None
    assert (cell.n, cell.of) == (2, 5)
    assert cell.note.endswith("; the first 2 questions")
    assert len(server.received) == 2
    told = "Incomplete: own-alpaca, judged by own-alpaca-eval-2/stub: tiny 2 of 5 judgments."
    assert told in outcome.err
    assert "(incomplete: 2 of 5)" in (tmp_path / "run/results.md").read_text(encoding="utf-8")


def test_a_limit_is_not_remembered_by_the_next_command(evaluate: Command, server: ChatServer, tmp_path: Path) -> None:
    server.fail(Fault(status=400, message="no such model"))
    assert evaluate("--limit", 2).code == 1
    outcome = evaluate()
    assert "own-alpaca: all 5 questions are asked. The last request was for the first 2." in outcome.err
    cell = find(cells_of(tmp_path / "run"), metric="win rate")
    assert cell is not None
    assert (cell.n, cell.of) == (5, 5)
    assert "the first" not in cell.note
    assert "ncomplete" not in outcome.err + (tmp_path / "run/results.md").read_text(encoding="utf-8")


def test_a_cost_above_the_limit_is_refused_before_anything_is_sent(evaluate: Command, server: ChatServer) -> None:
    outcome = evaluate("--max-cost", "0.0001", price={"input": 1000.0, "output": 1000.0})
    assert outcome.code == 1
    assert "--max-cost" in outcome.err
    assert server.received == []


def test_a_judge_that_refuses_stops_the_command_and_what_it_said_is_kept(evaluate: Command, server: ChatServer) -> None:
    server.fail(Fault(status=400, message="no such model"))
    outcome = evaluate()
    assert outcome.code == 1
    assert "no such model" in outcome.err
    paid = len(server.received) - 1
    assert evaluate().code == 0
    assert len(server.received) == 1 + len(own.INSTRUCTIONS)
    assert paid < len(server.received)


def test_passing_faults_of_the_judge_change_no_number(evaluate: Command, server: ChatServer, tmp_path: Path) -> None:
    assert evaluate(run=tmp_path / "calm").code == 0
    for fault in (Fault(status=429, retry_after="0"), Fault(status=500), Fault(body="{"), Fault(drop=True)):
        server.fail(fault)
    assert evaluate(run=tmp_path / "stormy", parameters={"max_tokens": 9}).code == 0
    for metric in ("win rate", "failed judgments"):
        calm, stormy = (find(cells_of(tmp_path / name), metric=metric) for name in ("calm", "stormy"))
        assert calm is not None
        assert stormy is not None
        assert calm.value == stormy.value


def test_existing_answers_are_judged_without_a_model(
    command: Command, files: Path, server: ChatServer, tmp_path: Path
) -> None:
    outputs = [{"instruction": text, "output": "x" * 60, "generator": "theirs"} for text in own.INSTRUCTIONS[::-1]]
    (files / "theirs.json").write_text(json.dumps(outputs), encoding="utf-8")
    judge = own.judge(files, "alpaca_eval_2", server.address)
    place = ("--benchmark", files / "own-alpaca.yaml", "--judge", judge, "--run", tmp_path / "run")
    outcome = command("eval", "their-model", "--outputs", files / "theirs.json", *place)
    assert outcome.code == 0, outcome.err
    cell = find(cells_of(tmp_path / "run"), row="theirs", metric="win rate")
    assert cell is not None
    assert (cell.value, cell.n, cell.decoding) == (100.0, 5, "as given")
    assert not (tmp_path / "run/base").exists()


def test_answers_to_other_questions_are_left_out_and_counted(
    command: Command, files: Path, server: ChatServer, tmp_path: Path
) -> None:
    asked = (*own.INSTRUCTIONS[:4], own.INSTRUCTIONS[4] + " ")
    outputs = [{"instruction": text, "output": "x" * 60, "generator": "theirs"} for text in asked]
    (files / "theirs.json").write_text(json.dumps(outputs), encoding="utf-8")
    judge = own.judge(files, "alpaca_eval_2", server.address)
    place = ("--benchmark", files / "own-alpaca.yaml", "--judge", judge, "--run", tmp_path / "run")
    outcome = command("eval", "their-model", "--outputs", files / "theirs.json", *place)
    assert outcome.code == 0, outcome.err
    told = "answer 4 of the 5 questions that are asked; 1 of the 5 answers are to other questions and left out."
    assert told in outcome.err
    assert "4 of 5 (incomplete)" in outcome.out


def test_answers_to_other_questions_are_refused(
    command: Command, files: Path, server: ChatServer, tmp_path: Path
) -> None:
    row = {"instruction": "Something else?", "output": "x", "generator": "theirs"}
    (files / "theirs.json").write_text(json.dumps([row]), encoding="utf-8")
    judge = own.judge(files, "alpaca_eval_2", server.address)
    place = ("--benchmark", files / "own-alpaca.yaml", "--judge", judge, "--run", tmp_path / "run")
    outcome = command("eval", "their-model", "--outputs", files / "theirs.json", *place)
    assert outcome.code == 1
    assert "answer none of the 5 questions" in outcome.err


def test_a_trained_run_has_its_iterations_as_rows_and_publishing_waits_for_them(
    command: Command, trained: Path, files: Path, server: ChatServer
) -> None:
    before = cells_of(trained)
    judge = own.judge(files, "alpaca_eval_2", server.address)
    words = ["--benchmark", files / "own-alpaca.yaml", "--judge", judge, "--profile", files / "exact.yaml"]
    one = command("eval", trained, *words, "--iteration", 2)
    assert one.code == 0, one.err
    assert [cell.row for cell in select(cells_of(trained), table="own-alpaca", metric="win rate")] == ["iteration-2"]
    answered = (trained / "iteration-2/own-alpaca/answers/manifest.json").stat().st_mtime_ns
    (trained / "iteration-2/own-alpaca/own-alpaca-eval-2-stub/judgments/manifest.json").unlink()
    refused = command("publish", trained, "--out", files / "out", "--profile", files / "exact.yaml")
    assert refused.code == 1
    assert "iteration-2/own-alpaca/own-alpaca-eval-2-stub/judgments is not finished" in refused.err
    every = command("eval", trained, *words)
    assert every.code == 0, every.err
    cells = cells_of(trained)
    rows = [cell.row for cell in select(cells, table="own-alpaca", metric="win rate")]
    assert sorted(rows) == ["base", "iteration-1", "iteration-2"]
    assert (trained / "iteration-2/own-alpaca/answers/manifest.json").stat().st_mtime_ns == answered
    assert cells[: len(before)] == before
    assert "own-alpaca, judged by" in command("report", trained).out
    assert command("verify", trained).code == 0


def test_the_recipes_benchmarks_are_asked_with_everything_else(
    command: Command, trained: Path, files: Path, server: ChatServer
) -> None:
    run = RunDirectory.open(trained)
    evaluation = run.recipe.evaluation.model_copy(update={"benchmarks": (str(files / "own-alpaca.yaml"),)})
    run.record_recipe(run.recipe.model_copy(update={"evaluation": evaluation}))
    judge = own.judge(files, "alpaca_eval_2", server.address)
    outcome = command("eval", trained, "--judge", judge, "--profile", files / "exact.yaml", "--limit", 2, "--json")
    assert outcome.code == 0, outcome.err
    rows = {cell["row"] for cell in json.loads(outcome.out)["cells"] if cell["table"] == "own-alpaca"}
    assert rows == {"base", "iteration-1", "iteration-2"}


def test_results_of_another_program_join_as_cells(command: Command, trained: Path, files: Path) -> None:
    document = {"results": {"quiz": {"alias": "quiz", "acc,none": 0.5, "acc_stderr,none": 0.05}}}
    (files / "lm.json").write_text(json.dumps(document), encoding="utf-8")
    wrong = command("eval", trained, "--import", files / "lm.json", "--row", "iteration-9")
    assert wrong.code == 1
    assert "has no row 'iteration-9'. Its rows: base, iteration-1, iteration-2" in wrong.line
    outcome = command("eval", trained, "--import", files / "lm.json", "--row", "iteration-2")
    assert outcome.code == 0, outcome.err
    cell = find(cells_of(trained), table="lm-evaluation-harness", row="iteration-2")
    assert cell is not None
    assert (cell.metric, cell.value, cell.standard_error) == ("quiz: acc", 0.5, 0.05)
    assert "quiz: acc" in (trained / "results.md").read_text(encoding="utf-8")
    assert command("verify", trained).code == 0


def test_two_runs_meet_head_to_head(evaluate: Command, tmp_path: Path) -> None:
    assert evaluate("--template", "fastchat:zephyr", run=tmp_path / "one").code == 0
    assert evaluate("--baseline", tmp_path / "one", run=tmp_path / "other").code == 0
    cell = find(cells_of(tmp_path / "other"), metric="win rate")
    assert cell is not None
    assert re.fullmatch(r"tiny@[0-9a-f]{8}", cell.baseline), "two models of one name are told apart"
    assert cell.value != 50.0 or cell.standard_error != 0.0


def test_pairs_of_mt_bench_are_games_against_a_baseline(
    evaluate: Command, tmp_path: Path, test_data: Path, server: ChatServer
) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}, whose judge prompts are needed; set GSHF_TEST_DATA")
    data = ("--data", test_data)
    assert evaluate(*data, "--template", "fastchat:zephyr", run=tmp_path / "one", kind="mt_bench_single").code == 0
    server.answer = lambda body: "[[A]]" if len(body["messages"][-1]["content"]) % 2 else "[[C]]"
    outcome = evaluate(*data, "--baseline", tmp_path / "one", run=tmp_path / "other", kind="mt_bench_pair")
    assert outcome.code == 0, outcome.err
    cells = select(cells_of(tmp_path / "other"), table="own-mt")
    rate = find(cells, metric="adjusted win rate")
    assert rate is not None
    assert (rate.value, rate.n, rate.unit) == (50.0, 6, "%"), "a judge that names the first place makes ties"


def test_doubts_about_verdicts_stand_before_the_table_in_it_and_in_the_results(
    evaluate: Command, tmp_path: Path, test_data: Path, server: ChatServer, command: Command
) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}, whose judge prompts are needed; set GSHF_TEST_DATA")
    server.answer = lambda body: "<think>Maybe [[3]].</think>On a scale of [[1]] to [[10]], this deserves [[9]]"
    outcome = evaluate("--data", test_data, kind="mt_bench_single")
    assert outcome.code == 0, outcome.err
    told = f"6 of 6 judgments: {LAST_COUNTS}"
    assert f"Warning: {told} (MT-Bench of tiny)." in outcome.err
    cells = cells_of(tmp_path / "run")
    average, counted = (find(cells, metric=name) for name in ("average", doubt(LAST_COUNTS)))
    assert average is not None
    assert counted is not None
    assert (average.value, counted.value, counted.n) == (9.0, 6.0, 6)
    assert told in average.note
    reported = command("report", tmp_path / "run")
    assert re.search(rf"Warning: own-mt, judged by .*, tiny: {re.escape(told)}\.", reported.err)
    assert told in " ".join(reported.out.split())
    assert command("verify", tmp_path / "run").code == 0
    (file,) = (tmp_path / "run").glob("tiny/own-mt/*/judgments/single.jsonl")
    scored = command("score", "mt_bench", file, "--json")
    assert json.loads(scored.out)[0]["doubts"] == {LAST_COUNTS: 6, THOUGHT: 6}
    assert told in scored.err


def test_mt_bench_asks_the_second_turn_with_the_first_answer_in_the_conversation(
    evaluate: Command, tmp_path: Path, tokenizer: Any, test_data: Path
) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}, whose judge prompts are needed; set GSHF_TEST_DATA")
    outcome = evaluate("--data", test_data, kind="mt_bench_single")
    assert outcome.code == 0, outcome.err
    place = tmp_path / "run/tiny/own-mt"
    first, second = (Sample.read(place / turn / "samples.parquet") for turn in ("turn-1", "turn-2"))
    lines = [
        json.loads(line) for line in (place / "answers/model_answer.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["choices"][0]["turns"] for line in lines] == [
        [one.text, two.text] for one, two in zip(first, second, strict=True)
    ]
    assert [sample.decoding for sample in first] == ["T=0.7", "greedy", "T=0.1"]
    for one, two in zip(first, second, strict=True):
        conversation = tokenizer.decode(two.prompt_ids)
        assert conversation.startswith(tokenizer.decode(one.prompt_ids))
        assert one.text in conversation
    judged = [json.loads(line) for line in next(place.glob("*/judgments/single.jsonl")).read_text().splitlines()]
    cells = select(cells_of(tmp_path / "run"), table="own-mt")
    average = find(cells, metric="average")
    assert average is not None
    assert average.value == pytest.approx(sum(row["score"] for row in judged) / 6)
    assert average.n == 6
    assert {entry.metric for entry in cells} == {
        "average",
        "average (low end)",
        "average (high end)",
        "first turn",
        "second turn",
        "failed judgments",
        "answered by stub",
        *(f"average: {name}" for name in own.CATEGORIES),
    }


@pytest.mark.slow
def test_killed_while_judging_and_resumed_pays_no_judgment_twice(
    files: Path, server: ChatServer, tiny_folder: Path, tmp_path: Path, evaluate: Command
) -> None:
    server.ready = lambda: len(server.received) < 3
    judge = own.judge(files, "alpaca_eval_2", server.address, endpoint=one_at_a_time(server.address))
    place = ["--run", tmp_path / "run", "--profile", files / "exact.yaml"]
    words = ["eval", tiny_folder / "tiny", "--benchmark", files / "own-alpaca.yaml", "--judge", judge, *place]
    process = subprocess.Popen(
        [sys.executable, "-m", "gshf_release", *map(str, words)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 300
    while len(server.received) < 3:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [json.dumps(each.body["messages"]) for each in server.received]
    server.ready = always
    outputs = sha256_file(tmp_path / "run/tiny/own-alpaca/answers/model_outputs.json")
    assert evaluate(endpoint=one_at_a_time(server.address)).code == 0
    after = [json.dumps(each.body["messages"]) for each in server.received[len(before) :]]
    assert sha256_file(tmp_path / "run/tiny/own-alpaca/answers/model_outputs.json") == outputs
    assert set(after) & set(before[:-1]) == set()  # the last one was cut off before its answer could be kept
    assert len(set(before) | set(after)) == len(own.INSTRUCTIONS)
    assert RunDirectory.open(tmp_path / "run").plan


@pytest.mark.parametrize("names", [(), ("模型-α",), ("theirs", None)])
def test_answers_without_a_name_bear_that_of_the_command_everywhere(
    command: Command, files: Path, server: ChatServer, tmp_path: Path, names: tuple[str | None, ...]
) -> None:
    outputs: list[dict[str, Any]] = [{"instruction": text, "output": "x" * 60} for text in own.INSTRUCTIONS]
    for row, name in zip(outputs, names, strict=False):
        row |= {"generator": name} if name else {}
    (files / "o.json").write_text(json.dumps(outputs), encoding="utf-8")
    words = ["--benchmark", files / "own-alpaca.yaml", "--judge", own.judge(files, "alpaca_eval_2", server.address)]
    outcome = command("eval", "My-Model", *words, "--outputs", files / "o.json", "--run", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    name = next((name for name in names if name), "My-Model")
    assert {cell.row for cell in cells_of(tmp_path / "run")} == {name}
    (path,) = (tmp_path / "run" / name).glob("own-alpaca/*/judgments/annotations.json")
    assert {row["generator_2"] for row in json.loads(path.read_text(encoding="utf-8"))} == {name}


@pytest.mark.parametrize("existing", [True, False])
def test_own_questions_of_one_turn_and_with_own_references_are_judged(
    evaluate: Command, files: Path, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    shared = PUBLISHED_DATA / "mt_bench"
    if not shared.is_dir():
        pytest.skip(f"no MT-Bench data at {shared}; set GSHF_TEST_DATA")
    monkeypatch.setenv("GSHF_BENCHMARK_DATA", str(PUBLISHED_DATA))
    rows = [
        {"question_id": 1, "category": "law", "turns": ["What is a tort?"]},
        {
            "question_id": 2,
            "category": "math",
            "turns": ["What is 2 + 2?", "And 3 + 3?"],
            "reference": ["OWN-4", "OWN-6"],
        },
        {"question_id": 3, "category": "math", "turns": ["What is 1 + 1?"], "reference": ["OWN-2"]},
    ]
    options: list[object] = []
    if existing:
        answers = [
            {"question_id": row["question_id"], "choices": [{"index": 0, "turns": ["x"] * len(row["turns"])}]}  # type: ignore[arg-type]
            for row in rows
        ]
        (files / "mine.jsonl").write_text("\n".join(json.dumps(row) for row in answers), encoding="utf-8")
        options = ["--outputs", files / "mine.jsonl"]
    (files / "question.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    outcome = evaluate(*options, kind="mt_bench_single")
    assert outcome.code == 0, outcome.err
    asked = [body["messages"][-1]["content"] for body in (entry.body for entry in server.received)]
    assert len(asked) == 4
    assert sum("OWN-4" in text for text in asked) == 2
    assert sum("OWN-6" in text for text in asked) == 1
    assert sum("OWN-2" in text for text in asked) == 1
    average = find(cells_of(tmp_path / "run"), metric="average")
    assert average is not None
    assert (average.n, average.of) == (4, 4)
