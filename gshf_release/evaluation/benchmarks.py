"""Benchmarks: what is asked, how it is decoded, who judges it by default. Read from eval/benchmarks/*.yaml.

A benchmark of one's own is a copy of such a file that names a file of questions in the same form; its results stand under its
own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gshf_release.data import assets, user_files
from gshf_release.data.hashing import sha256_json
from gshf_release.errors import DataError
from gshf_release.prompts import benchmark_files
from gshf_release.recipe import Name, PositiveInt, Section, parse, read_mapping
from gshf_release.run import input_copies
from gshf_release.run.directory import RunDirectory
from gshf_release.sampling.protocol import Decoding

FOLDER = "eval/benchmarks"

Protocol = Literal["alpaca_eval", "mt_bench"]


class BenchmarkDecoding(Section):
    """Says how a benchmark's answers are drawn."""

    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: PositiveInt


class AnswerSettings(Section):
    """Says what of a benchmark decides the answers: it is fingerprinted with them."""

    protocol: Protocol
    """The form of questions, answers and judgments: one turn compared with a baseline, or two turns rated."""
    decoding: BenchmarkDecoding
    temperatures: Mapping[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """By category, before `decoding.temperature`."""
    greedy_below: Annotated[float, Field(ge=0)] = 0.0
    """A lower temperature is greedy decoding."""
    system: str | None = None
    """A system turn; None is the recipe's."""
    empty_system: bool | None = None
    """An empty system turn where there is none; None is the recipe's switch."""

    def decoding_of(self, category: str) -> Decoding:
        """Return how the answers to questions of a category are drawn."""
        temperature = self.temperatures.get(category, self.decoding.temperature)
        if temperature < self.greedy_below:
            temperature = 0.0
        return Decoding(temperature, self.decoding.max_new_tokens, self.decoding.top_p)

    @property
    def label(self) -> str:
        """`T=0.7`, or `by category` where the temperature depends on it."""
        return "by category" if self.temperatures else self.decoding_of("").label


class Benchmark(AnswerSettings):
    """One file of eval/benchmarks."""

    name: Name
    questions: str | None = None
    """A file, relative to the YAML file; None is the published one, known by its sha256."""
    judge: str
    """A name in eval/judges, or a file, for commands that name no other."""
    baseline: str | None = None
    """`questions`: the answers that stand in the file of the questions; else what `--baseline` accepts, a file also relative to
    the YAML file."""

    @property
    def asking(self) -> AnswerSettings:
        """The part that decides the answers."""
        return AnswerSettings(**{key: getattr(self, key) for key in AnswerSettings.model_fields})

    @property
    def turns(self) -> int:
        """Return how often a question is answered."""
        return 1 if self.protocol == "alpaca_eval" else 2

    @property
    def published(self) -> bool:
        """Return whether the questions are the published ones."""
        return self.questions is None


@dataclass(frozen=True, slots=True)
class Question:
    """Holds what a model is asked, turn by turn."""

    key: str
    """Row (from 0) of an AlpacaEval file, or the question id of an MT-Bench file."""
    category: str
    """MT-Bench's category, or AlpacaEval's `dataset`."""
    turns: tuple[str, ...]


def load_benchmark(reference: str, run: RunDirectory | None = None) -> Benchmark:
    """Return the benchmark of a name in eval/benchmarks, or in a file.

    Args:
        reference: The name or file.
        run: A run whose copies serve where the file, or that of its questions, is gone.

    Raises:
        RecipeError: There is none, or a key is wrong.
    """
    key, path = input_key(reference), path_of(reference, run)
    benchmark = parse(Benchmark, read_mapping(path), str(path))
    if benchmark.questions is not None:
        own = Path(benchmark.questions).expanduser()
        questions = own if own.is_absolute() else path.parent / own
        if run is not None and not questions.exists():
            questions = input_copies.kept_input(run, f"{key}.questions", benchmark.questions) or questions
        benchmark = benchmark.model_copy(update={"questions": str(questions)})
    return benchmark


def path_of(reference: str, run: RunDirectory | None = None) -> Path:
    """Return the file of a benchmark, or the run's copy of it where it is gone.

    Raises:
        RecipeError: There is neither.
    """
    return input_copies.find_input(
        run, input_key(reference), reference, lambda: assets.find(reference, FOLDER, ".yaml")
    )


def input_key(reference: str) -> str:
    """Return what the run's copies of the files of one benchmark are called."""
    return f"evaluation.benchmarks.{sha256_json(reference)[:8]}"


def keep_benchmark(run: RunDirectory, reference: str) -> None:
    """Copy a benchmark's file, and that of its own questions, into the run; so also what came with the package.

    Raises:
        RecipeError: The benchmark is neither there nor kept.
    """
    key, path = input_key(reference), path_of(reference, run)
    input_copies.keep_input(run, key, reference, path)
    named = parse(Benchmark, read_mapping(path), str(path)).questions
    questions = load_benchmark(reference, run).questions
    if named is not None and questions is not None and Path(questions).is_file():
        input_copies.keep_input(run, f"{key}.questions", named, Path(questions))


def pinned(benchmark: Benchmark) -> benchmark_files.BenchmarkFile:
    """Return the published file of a benchmark's protocol."""
    return {"alpaca_eval": benchmark_files.ALPACA_EVAL, "mt_bench": benchmark_files.MT_BENCH}[benchmark.protocol]


def questions_file(benchmark: Benchmark, data: Path | None = None) -> Path:
    """Return where a benchmark's questions are, fetching the published file if it is not here.

    Raises:
        DataError: The file does not exist, or is not the pinned one.
        NetworkError: The published file is not here and could not be fetched.
    """
    if benchmark.questions is None:
        return benchmark_files.fetch(pinned(benchmark), data)
    path = Path(benchmark.questions)
    if not path.is_file():
        raise DataError(f"The questions of {benchmark.name} are not at {path}.")
    return path


def read_questions(protocol: str, path: Path, limit: int | None = None) -> list[Question]:
    """Return the questions of a file in order, at most the first `limit`.

    Raises:
        DataError: A row has not the form of the protocol; names the file and the row.
    """
    if protocol == "alpaca_eval":
        found = [
            Question(str(number), str(row.get("dataset", "")), (row["instruction"],))
            for number, row in enumerate(read_json_rows(path, ("instruction",)))
        ]
    else:
        found = [_one_or_two_turns(path, line, row) for line, row in enumerate(read_json_rows(path), 1)]
    keys = [question.key for question in found]
    if len(set(keys)) < len(keys):
        raise DataError(f"{path} has the question id {next(key for key in keys if keys.count(key) > 1)} twice.")
    return found[:limit]


def read_json_rows(path: Path, texts: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the objects of a file of rows, each with texts under `texts`: a JSON list or one object a line, also packed.

    Raises:
        DataError: The file cannot be read or holds no row, or a row is malformed; names the file and the row (from 1).
    """
    rows = []
    for place, row in user_files.objects(path):
        for key in texts:
            if not isinstance(row.get(key), str):
                raise DataError(f"{place}: expected a text under {key!r}.")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no row.")
    return rows


def _one_or_two_turns(path: Path, line: int, row: Mapping[str, Any]) -> Question:
    turns = row.get("turns")
    good = isinstance(turns, list) and len(turns) in (1, 2) and all(isinstance(turn, str) for turn in turns)
    if not good or not isinstance(row.get("question_id"), int) or not isinstance(row.get("category"), str):
        raise DataError(
            f'{path}, question {line}: expected "question_id", "category" and one or two texts under "turns".'
        )
    return Question(str(row["question_id"]), row["category"], tuple(turns))  # type: ignore[arg-type]
