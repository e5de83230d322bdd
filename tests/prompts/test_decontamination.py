"""Decontamination: what each of the three tests finds, and that a missing benchmark is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from gshf_release.data.hashing import sha256_file
from gshf_release.errors import DataError
from gshf_release.prompts import benchmark_files
from gshf_release.prompts.benchmark_files import BENCHMARKS, BenchmarkFile, BenchmarkPrompt, UpstreamFile
from gshf_release.prompts.decontamination import (
    EXACT,
    OVERLAP,
    SIMILAR,
    Contamination,
    Decontaminator,
    available,
    load,
    runs_of_words,
)

KNOWN = [
    BenchmarkPrompt("a/0", "Which planets of our solar system have rings that a small telescope can show?"),
    BenchmarkPrompt("a/1", "Why do US coins carry small letters?"),
    BenchmarkPrompt("m/81/2", "Shorten your previous answer. End every line with the word tea."),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("why do US coins carry small letters", Contamination(EXACT, "a/1")),
        ("WHY do U.S. coins carry small letters?", Contamination(SIMILAR, "a/1")),
        (
            "My grandmother asks: which planets of our solar system have rings? She means those known in her youth, "
            "not today's, and would like to know how far from the sun they are.",
            Contamination(OVERLAP, "a/0"),
        ),
        ("Shorten your answer. End each line with the word tea.", Contamination(SIMILAR, "m/81/2")),
        ("Shorten your previous answer. End with the word milk, please, and begin it with a B.", None),
        ("How do states of matter differ?", None),
        ("", None),
    ],
)
def test_each_test_finds_its_kind(text: str, expected: Contamination | None) -> None:
    assert Decontaminator(KNOWN).check([text]) == [expected]


def test_seven_words_in_a_row_are_no_overlap_and_eight_are() -> None:
    long = " ".join(f"other{number}" for number in range(30))
    decontaminator = Decontaminator(KNOWN)
    assert decontaminator.check([f"{long} which planets of our solar system have {long}"]) == [None]
    (hit,) = decontaminator.check([f"{long} which planets of our solar system have rings {long}"])
    assert hit == Contamination(OVERLAP, "a/0")


def test_runs_of_words_ignore_case_and_punctuation() -> None:
    assert list(runs_of_words("A b, C d", 3)) == [("a", "b", "c"), ("b", "c", "d")]
    assert list(runs_of_words("a b", 3)) == []


@pytest.fixture
def one_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make MT-Bench one small local file and AlpacaEval unreachable."""
    path = tmp_path / "questions"
    path.write_text('{"question_id": 81, "turns": ["Why?", "And why not?"]}\n', encoding="utf-8")
    there = BenchmarkFile("q", sha256_file(path), path.stat().st_size, (UpstreamFile(path.as_uri()),))
    gone = BenchmarkFile("gone.json", "0" * 64, 1, (UpstreamFile("http://127.0.0.1:9/gone"),))
    monkeypatch.setitem(BENCHMARKS, "mt-bench", (there, benchmark_files.mt_bench_prompts))
    monkeypatch.setitem(BENCHMARKS, "alpaca-eval", (gone, benchmark_files.alpaca_eval_prompts))
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GSHF_BENCHMARK_DATA", raising=False)
    return tmp_path / "cache"


def test_a_missing_benchmark_is_told_with_the_reason(one_missing: Path) -> None:
    told = available(["alpaca-eval", "mt-bench"])
    assert told["mt-bench"] == ""
    assert "gone.json" in told["alpaca-eval"]
    assert "could not be fetched" in told["alpaca-eval"]
    assert [prompt.key for prompt in load(["mt-bench"])] == ["mt-bench/81/1", "mt-bench/81/2"]


def test_a_benchmark_that_vanished_is_an_error(one_missing: Path) -> None:
    with pytest.raises(DataError, match=r"gone.json of alpaca-eval is no longer here"):
        load(["alpaca-eval"])


def test_the_real_benchmarks_find_themselves(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}; set GSHF_TEST_DATA")
    monkeypatch.setenv("GSHF_BENCHMARK_DATA", str(test_data))
    prompts = load(["alpaca-eval", "mt-bench"])
    decontaminator = Decontaminator(prompts)
    found = decontaminator.check([prompt.text.upper() for prompt in prompts])
    assert [hit.reason for hit in found if hit is not None] == [EXACT] * 965
    edited = [" ".join(prompt.text.split()[:-1]) for prompt in prompts[:100]]
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    for text, prompt, hit in zip(edited, prompts, decontaminator.check(edited), strict=False):
        if scorer.score(prompt.text, text)["rougeL"].fmeasure > 0.7:
            assert hit is not None


def test_the_seed_prompts_are_clean(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gshf_release.prompts.split import read_prompts, source_path

    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}; set GSHF_TEST_DATA")
    monkeypatch.setenv("GSHF_BENCHMARK_DATA", str(test_data))
    seeds = [prompt.messages[-1]["content"] for prompt in read_prompts(source_path("seed", "training/prompts"))]
    found = Decontaminator(load(["alpaca-eval", "mt-bench"])).check(seeds)
    assert [(text, hit) for text, hit in zip(seeds, found, strict=True) if hit is not None] == []
