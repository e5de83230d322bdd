"""Store what `gshf-release eval` was asked for in the run: `evaluations/requests.json`.

The stage graph is built from the recipe and from this file, so that `status`, `verify`, `report` and `publish` know the stages
of an evaluation that no recipe mentions. A request is only added to or replaced; another judge leaves the earlier one's cells.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from gshf_release.errors import RunError
from gshf_release.evaluation.benchmarks import AnswerSettings
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.recipe import PositiveInt, Section, parse
from gshf_release.run.directory import RunDirectory, read_json, write_json

FILE = "evaluations/requests.json"
FORMAT = 1
LONGEST = 80
"""Bytes of a folder's name."""


class BorrowedFiles(Section):
    """Says what the length-controlled win rate borrows from AlpacaEval."""

    gamed: str | None = None
    """sha256 of the run's copy of df_gamed.csv."""
    verified: bool = True
    """Whether it is the pinned file."""
    missing: str = ""
    """Why it is not here."""


class AskedAgain(Section):
    """A request to ask a judge once more about what it was asked before."""

    what: Literal["failed", "all"]
    """Only what failed, or everything."""
    at: float
    """When, in seconds since 1970: judgments that are older do not count."""

    @property
    def since(self) -> float:
        """Return from when on a judgment in the cache counts."""
        return self.at if self.what == "all" else 0.0


class JudgeRequest(Section):
    """One judge asked about some rows of one benchmark."""

    judge: Mapping[str, Any]
    """Its settings, as resolved when it was asked for. They hold no key."""
    baseline: str | None
    """sha256 of the run's copy of the baseline's answers; None where the judge rates single answers."""
    baseline_name: str
    """The model of the baseline's answers."""
    repeats: PositiveInt
    rows: tuple[str, ...]
    calibration: str | None = None
    """sha256 of the run's copy of the judge's calibration."""
    asked_again: Mapping[str, AskedAgain] = Field(default_factory=dict)
    """By row; the last request of each."""


class BenchmarkRequest(Section):
    """One benchmark: what is asked, of whom, and who judges."""

    asking: AnswerSettings
    questions: str
    """sha256 of the run's copy of the file of questions."""
    published: bool
    """Whether those are the published questions."""
    count: PositiveInt
    """How many are asked."""
    whole: PositiveInt
    """How many the file has."""
    turns: PositiveInt
    """The most turns that a question has."""
    limit: PositiveInt | None
    template: str | None
    borrowed: BorrowedFiles = BorrowedFiles()
    existing: Mapping[str, str] = Field(default_factory=dict)
    """`{row: sha256}` of answers that were given as a file."""
    names: Mapping[str, str] = Field(default_factory=dict)
    """`{row: what its model is called}` of those answers, as the file says or, if it does not, the command."""
    judges: Mapping[str, JudgeRequest] = Field(default_factory=dict)
    """By the name of their folder."""

    @property
    def rows(self) -> tuple[str, ...]:
        """Return every row that any judge is asked about, in order of first request."""
        return tuple(dict.fromkeys(row for request in self.judges.values() for row in request.rows))


class ImportRequest(Section):
    """A file of another evaluation's results."""

    sha256: str
    row: str


class Requests(Section):
    """Everything that was asked for."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    benchmarks: Mapping[str, BenchmarkRequest] = Field(default_factory=dict)
    imports: Mapping[str, ImportRequest] = Field(default_factory=dict)


def read_requests(run: RunDirectory | None) -> Requests:
    """Return what was asked for; nothing if the run has no such file.

    Raises:
        RunError: The file is damaged.
    """
    if run is None or not (run.path / FILE).is_file():
        return Requests()
    try:
        requests = parse(Requests, read_json(run.path / FILE), str(run.path / FILE))
        for benchmark in requests.benchmarks.values():
            for label, request in benchmark.judges.items():
                parse(JudgeSettings, dict(request.judge), f"{run.path / FILE} (judge {label})")
        return requests
    except ValueError as error:
        raise RunError(
            f"{run.path / FILE} is damaged: {error}", hint="Restore it, or remove it and ask again."
        ) from error


def write_requests(run: RunDirectory, requests: Requests) -> None:
    """Remember what was asked for."""
    write_json(run.path / FILE, requests.model_dump(mode="json"))


def with_judge(
    requests: Requests, benchmark: str, asked: BenchmarkRequest, label: str, judge: JudgeRequest
) -> Requests:
    """Return the requests with one more judge, or with the same one asked about more rows.

    Earlier judges of the benchmark stay as long as the same questions are asked; they then judge what `asked` says.
    """
    known = requests.benchmarks.get(benchmark)
    judges = dict(known.judges) if known is not None else {}
    given = known.existing if known is not None else {}
    existing = {row: sha256 for row, sha256 in given.items() if row not in judge.rows}  # else they shall answer anew
    earlier = judges.get(label)
    rows = tuple(dict.fromkeys([*(earlier.rows if earlier is not None else ()), *judge.rows]))
    calibration = judge.calibration or (earlier.calibration if earlier is not None else None)
    again = {**(earlier.asked_again if earlier is not None else {}), **judge.asked_again}
    judges[label] = judge.model_copy(update={"rows": rows, "calibration": calibration, "asked_again": again})
    names = {**(known.names if known is not None else {}), **asked.names}
    given_now = {"existing": existing | dict(asked.existing), "names": names, "judges": judges}
    asked = asked.model_copy(update=given_now)
    return requests.model_copy(update={"benchmarks": {**requests.benchmarks, benchmark: asked}})


def slug(text: str) -> str:
    """Return a name in any script as a folder's name: letters and digits stay, what stands between them becomes `-`.

    Two names of which more than the signs between words is lost, or that are too long, differ by their hash.
    """
    plain = unicodedata.normalize("NFC", text)
    lost = any(letter not in "._-" and not _is_word(letter) and not letter.isascii() for letter in plain)
    found = "".join(letter if letter in "._-" or _is_word(letter) else " " for letter in plain)
    return _named(re.sub(r" +", "-", found).strip("-."), text, lost)


def ascii_slug(text: str) -> str:
    """Return a name as `slug` does, in letters of ASCII alone, as a recipe's name must be."""
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    return _named(found, text, not text.isascii())


def _is_word(letter: str) -> bool:
    """Return whether a character is part of a word in some script: a letter, a mark on one, a digit."""
    return unicodedata.category(letter)[0] in "LMN"


def _named(found: str, text: str, lost: bool) -> str:
    """Return a folder's name of at most 80 bytes, with the text's hash where it alone would not tell texts apart."""
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    if not found:
        return f"name-{mark}"
    short = found.encode("utf-8")[:LONGEST].decode("utf-8", "ignore")
    if short == found and not lost:
        return found
    return f"{found.encode('utf-8')[: LONGEST - 9].decode('utf-8', 'ignore')}-{mark}"


def rows_known(rows: Sequence[str], policies: Sequence[str], existing: Mapping[str, str]) -> list[str]:
    """Return those rows that still exist: a recipe with fewer iterations has lost some."""
    return [row for row in rows if row in policies or row in existing]
