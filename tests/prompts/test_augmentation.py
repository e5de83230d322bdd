"""Writing prompts with a model at a real HTTP server: what is kept, what is dropped, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rouge_score.rouge_scorer import RougeScorer

from gshf_release.data.hashing import sha256_file
from gshf_release.data.results import find, read_cells
from gshf_release.errors import EngineError, RecipeError
from gshf_release.prompts import benchmark_files
from gshf_release.prompts.augmentation import asks_of_round, usable_seeds
from gshf_release.prompts.benchmark_files import BENCHMARKS, BenchmarkFile, UpstreamFile
from gshf_release.prompts.pool import Accepted, Candidate, Dropped, Pool, prompt_id
from gshf_release.prompts.split import read_prompts
from gshf_release.prompts.usage import ExcludedPrompts, PromptUse, excluded
from gshf_release.recipe import Recipe
from gshf_release.release import prompt_set
from gshf_release.release.verify import verify_run
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from gshf_release.serving import openai_client
from tests.conftest import REPOSITORY, Outcome
from tests.prompts.written import BENCHMARK_PROMPT, answer, files, prompts_recipe, serving
from tests.run.plans import Heard
from tests.servers.chat import ChatServer, Fault
from tests.servers.chat.server import KEY, always

SCORER = RougeScorer(["rougeL"], use_stemmer=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GSHF_BENCHMARK_DATA", raising=False)
    monkeypatch.setattr(openai_client, "FIRST_PAUSE_SECONDS", 0.01)
    with ChatServer(answer) as started:
        yield started


def made(
    path: Path, chosen: Recipe, server: ChatServer, observer: SilentObserver | None = None, **settings: Any
) -> RunDirectory:
    """Return the run with its prompts written."""
    profile = serving(server.address, **settings)
    run = RunDirectory.create(path, chosen, profile)
    prompt_set.make_prompt_set(run, chosen, profile, allow_redo=True, observer=observer or SilentObserver())
    return run


def accepted(run: RunDirectory) -> list[Accepted]:
    return Accepted.read(run.path / "prompts" / "written" / "accepted.parquet")


def dropped(run: RunDirectory) -> list[Dropped]:
    return Dropped.read(run.path / "prompts" / "written" / "dropped.parquet")


def cell(run: RunDirectory, metric: str) -> Any:
    return find(read_cells(run.path / "results.json"), metric=metric)


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a benchmark of one prompt, in AlpacaEval's place; MT-Bench cannot be reached."""
    path = tmp_path / "benchmarks" / "alpaca.json"
    path.parent.mkdir()
    path.write_text(json.dumps([{"instruction": BENCHMARK_PROMPT}]), encoding="utf-8")
    nowhere = (UpstreamFile("http://127.0.0.1:9/"),)
    file = BenchmarkFile("alpaca.json", sha256_file(path), path.stat().st_size, nowhere)
    gone = BenchmarkFile("gone.jsonl", "0" * 64, 1, nowhere)
    monkeypatch.setitem(BENCHMARKS, "alpaca-eval", (file, benchmark_files.alpaca_eval_prompts))
    monkeypatch.setitem(BENCHMARKS, "mt-bench", (gone, benchmark_files.mt_bench_prompts))
    return path.parent


def test_the_set_has_as_many_prompts_as_wanted_and_no_near_copies(server: ChatServer, tmp_path: Path) -> None:
    chosen = prompts_recipe(tmp_path)
    run = made(tmp_path / "run", chosen, server)
    rows = [row for row in accepted(run) if not row.example]
    assert len(rows) == 60
    seeds = [prompt.messages[0]["content"] for prompt in read_prompts(tmp_path / "seeds.jsonl")]
    known = [*seeds, *(row.prompt for row in accepted(run))]
    for number, one in enumerate(known[: len(seeds) + 15]):
        if number >= len(seeds):
            assert all(SCORER.score(one, other)["rougeL"].fmeasure <= 0.7 for other in known[:number])


def test_every_entry_is_accepted_or_dropped_for_a_reason_that_is_counted(server: ChatServer, tmp_path: Path) -> None:
    run = made(tmp_path / "run", prompts_recipe(tmp_path), server)
    reasons = Counter(row.reason for row in dropped(run))
    assert set(reasons) >= {"too short", "blacklisted word", "same words", "near copy"}
    for reason, count in reasons.items():
        assert cell(run, f"dropped: {reason}").value == count
    assert cell(run, "entries").value == len(accepted(run)) + len(dropped(run))
    good = len(accepted(run)) + reasons["after the target"]
    assert cell(run, "yield").value == pytest.approx(100 * good / cell(run, "entries").value)
    assert cell(run, "in the set").value == 60
    assert "the target is reached" in cell(run, "in the set").note
    assert verify_run(run).numbers == len(read_cells(run.path / "results.json"))


def test_requests_show_six_seeds_and_two_written_prompts_once_there_are_some(tmp_path: Path) -> None:
    settings = prompts_recipe(tmp_path).prompts.augmentation
    seeds = [f"seed number {number}" for number in range(30)]
    pool = Pool(settings, 0, seeds, None)
    early = asks_of_round(0, pool, seeds, settings, 0)
    assert all(ask.text.count("seed number") == 8 and ask.first == 9 for ask in early)
    texts = [f"written {number} {number * 7} {number * 13}" for number in range(400)]
    pool.consider([Candidate(text, 0, number) for number, text in enumerate(texts)])
    assert len(pool.examples) > 2
    for ask in asks_of_round(1, pool, seeds, settings, 0):
        assert ask.text.count("seed number") == 6
        assert sum(f". {text}\n" in ask.text for text in pool.examples) == 2
    assert [ask.seed for ask in early] != [ask.seed for ask in asks_of_round(1, pool, seeds, settings, 0)]


def test_what_the_writer_was_shown_is_no_part_of_the_set(server: ChatServer, tmp_path: Path) -> None:
    run = made(tmp_path / "run", prompts_recipe(tmp_path, target=150), server)
    shown = "\n".join(received.body["messages"][0]["content"] for received in server.received)
    lines = (run.path / "prompts" / "set" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 150
    assert not [line for line in lines if json.loads(line)["prompt"] in shown]
    assert any(row.prompt in shown for row in accepted(run) if row.example)


def test_a_failure_in_the_middle_loses_nothing_and_the_end_is_the_same(server: ChatServer, tmp_path: Path) -> None:
    chosen = prompts_recipe(tmp_path)
    expected = files(made(tmp_path / "unbroken", chosen, server))
    asked = len(server.received)
    server.received.clear()
    calls = 0

    def refuse_the_tenth(body: dict[str, Any]) -> str:
        nonlocal calls
        calls += 1
        if calls == 9:
            server.fail(Fault(status=400, message="no credit left"))
        return answer(body)

    server.answer = refuse_the_tenth
    with pytest.raises(EngineError, match="no credit left"):
        made(tmp_path / "run", chosen, server, concurrent_requests=1)
    server.answer = answer
    assert files(made(tmp_path / "run", chosen, server)) == expected
    assert len(server.received) == asked + 1  # the refused one


def test_what_was_answered_once_is_not_asked_again(server: ChatServer, tmp_path: Path) -> None:
    chosen = prompts_recipe(tmp_path)
    run = made(tmp_path / "run", chosen, server)
    before, asked = files(run), len(server.received)
    (run.path / "prompts" / "written" / "manifest.json").unlink()
    assert files(made(tmp_path / "run", chosen, server)) == before
    assert len(server.received) == asked


def test_a_larger_target_keeps_the_prompts_and_asks_only_for_more(server: ChatServer, tmp_path: Path) -> None:
    run = made(tmp_path / "run", prompts_recipe(tmp_path), server)
    few, asked = accepted(run), len(server.received)
    more = accepted(made(tmp_path / "run", prompts_recipe(tmp_path, target=120), server))
    assert more[: len(few)] == few
    assert sum(not row.example for row in more) == 120
    assert len({json.dumps(received.body) for received in server.received}) == len(server.received) > asked


def test_an_unproductive_writer_stops_and_the_results_say_so(server: ChatServer, tmp_path: Path) -> None:
    server.answer = lambda body: "I cannot help with that."
    run = made(tmp_path / "run", prompts_recipe(tmp_path), server)
    assert cell(run, "in the set").value == 0
    assert "nothing new" in cell(run, "in the set").note
    assert cell(run, "requests").value == 8 * 4


def test_the_limit_of_requests_is_kept(server: ChatServer, tmp_path: Path) -> None:
    run = made(tmp_path / "run", prompts_recipe(tmp_path, target=5000, maximum_requests=10), server)
    assert len(server.received) == cell(run, "requests").value == 10
    assert "maximum_requests" in cell(run, "in the set").note


def test_the_last_entry_of_a_cut_answer_is_discarded_and_counted(server: ChatServer, tmp_path: Path) -> None:
    run = made(tmp_path / "run", prompts_recipe(tmp_path, target=20, max_new_tokens=40), server)
    assert cell(run, "requests").note == f"{cell(run, 'requests').value:.0f} answers cut by the limit"
    assert cell(run, "entries").note == f"{cell(run, 'requests').value:.0f} incomplete ones discarded"


def test_benchmark_prompts_are_removed_and_missing_benchmarks_are_told(
    server: ChatServer, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GSHF_BENCHMARK_DATA", str(benchmark))
    heard = Heard()
    chosen = prompts_recipe(tmp_path, decontaminate=["alpaca-eval", "mt-bench"])
    run = made(tmp_path / "run", chosen, server, heard)
    removed = [row for row in dropped(run) if row.reason == "benchmark: same words"]
    assert {(row.prompt_id, row.of) for row in removed} == {(prompt_id(BENCHMARK_PROMPT), "alpaca-eval/0")}
    assert cell(run, "benchmark: alpaca-eval").value == 1
    assert cell(run, "benchmark: mt-bench").value is None
    assert "NOT CHECKED" in cell(run, "benchmark: mt-bench").note
    assert any("NOT be compared with mt-bench: gone.jsonl" in notice for notice in heard.notices)
    card = (run.path / "prompts" / "set" / "dataset" / "README.md").read_text(encoding="utf-8")
    assert "**Not compared with mt-bench**" in card
    assert "equals a prompt of alpaca-eval" in card


def test_a_benchmark_that_comes_later_is_compared_then(
    server: ChatServer, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = prompts_recipe(tmp_path, decontaminate=["alpaca-eval"])
    run = made(tmp_path / "run", chosen, server)
    assert BENCHMARK_PROMPT in {row.prompt for row in accepted(run)}
    monkeypatch.setenv("GSHF_BENCHMARK_DATA", str(benchmark))
    run = made(tmp_path / "run", chosen, server)
    assert BENCHMARK_PROMPT not in {row.prompt for row in accepted(run)}
    assert cell(run, "in the set").value == 60


def test_seeds_that_evaluate_or_belong_to_a_benchmark_are_not_shown(tmp_path: Path) -> None:
    from gshf_release.prompts.benchmark_files import BenchmarkPrompt
    from gshf_release.prompts.decontamination import Decontaminator

    chosen = prompts_recipe(tmp_path)
    with (tmp_path / "seeds.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(f'{{"prompt": "{BENCHMARK_PROMPT}"}}\n{{"prompt": "What would you evaluate with this?"}}\n')
        stream.write(
            '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "two turns here"}]}\n'
        )
        stream.write('{"prompt": "Which one was a test prompt?"}\n')
    tested = PromptUse("x", "test", [{"role": "user", "content": "Which one was a test prompt?"}])
    decontaminator = Decontaminator([BenchmarkPrompt("alpaca-eval/1", BENCHMARK_PROMPT)])
    seeds, removed = usable_seeds(chosen, ExcludedPrompts((tested,)), decontaminator)
    assert len(seeds) == 30
    assert sorted((row["reason"], row["of"]) for row in removed) == [
        ("benchmark: same words", "alpaca-eval/1"),
        ("evaluates a run", ""),
        ("evaluates a run", ""),
        ("more than one turn", ""),
    ]


def test_prompts_of_earlier_runs_are_not_written_again(server: ChatServer, tmp_path: Path) -> None:
    first = made(tmp_path / "first", prompts_recipe(tmp_path), server)
    chosen = prompts_recipe(tmp_path)
    prompts = chosen.prompts.model_copy(update={"exclude": (str(first.path),)})
    chosen = chosen.model_copy(update={"prompts": prompts})
    assert len(excluded(chosen).rows) == len(accepted(first))
    second = made(tmp_path / "second", chosen, server)
    ids = [row.prompt_id for run in (first, second) for row in accepted(run)]
    assert len(ids) == len(set(ids))
    assert sum(not row.example for row in accepted(second)) == 60
    for one in accepted(second)[:6]:
        assert all(SCORER.score(one.prompt, row.prompt)["rougeL"].fmeasure <= 0.7 for row in accepted(first))


def test_too_few_seeds_are_one_clear_error(server: ChatServer, tmp_path: Path) -> None:
    chosen = prompts_recipe(tmp_path, shown_seeds=29)
    with pytest.raises(RecipeError, match="has 30 usable seeds, but one request shows 31 prompts"):
        made(tmp_path / "run", chosen, server)


def test_the_key_stands_in_no_file_of_the_run(server: ChatServer, tmp_path: Path) -> None:
    run = made(tmp_path / "run", prompts_recipe(tmp_path), server)
    assert not [path for path in run.path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_killed_process_goes_on_to_the_same_prompts(server: ChatServer, tmp_path: Path) -> None:
    chosen = prompts_recipe(tmp_path)
    expected = files(made(tmp_path / "unbroken", chosen, server))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "gshf_release", "prompts", str(tmp_path / "recipe.yaml"), "--json"]
    command += ["--server", server.address, "--run", str(tmp_path / "run")]
    server.received.clear()
    server.ready = lambda: len(server.received) < 6
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while len(server.received) < 6 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert len(server.received) >= 6
    assert not (tmp_path / "run" / "prompts" / "written" / "manifest.json").exists()
    with (tmp_path / "run" / "answers.jsonl").open("ab") as stream:
        stream.write(b'{"key": "cut by the ki')
    server.ready = always
    done = subprocess.run(command, cwd=REPOSITORY, env=dict(os.environ), capture_output=True, text=True, check=True)
    assert files(RunDirectory.open(tmp_path / "run")) == expected
    told = json.loads(done.stdout)
    assert Path(told["jsonl"]).is_file()
    assert told["prompts_a_minute"] > 0


def test_the_command_shows_yield_reasons_and_throughput(
    command: Callable[..., Outcome], server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = prompts_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json")), encoding="utf-8")
    outcome = command("prompts", "recipe.yaml", "--server", server.address)
    assert outcome.code == 0, outcome.err
    for told in ("in the set", "yield", "dropped: near copy", "the target is reached"):
        assert told in outcome.out
    assert "prompts a minute" in outcome.err
    assert "--set prompts.source=runs/small-prompts/prompts/set/prompts.jsonl" in outcome.err
    assert "AI prompts" in command("report", "runs/small-prompts").out
    assert command("verify", "runs/small-prompts").code == 0
    assert "finished" in command("status", "runs/small-prompts").out


def test_a_served_writer_without_a_server_is_one_line(
    command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = prompts_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json")), encoding="utf-8")
    outcome = command("prompts", "recipe.yaml")
    assert outcome.code == 1
    assert "The profile names no server. Set server.address in a profile, or give --server ADDRESS." in outcome.err
