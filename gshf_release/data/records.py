"""Typed rows and their Parquet schemas.

A row class is a frozen dataclass; its Parquet schema is derived from its annotations, so the two cannot differ.
"""

from __future__ import annotations

import contextlib
import itertools
import types
import typing
from collections.abc import Collection, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Self, TypedDict, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gshf_release.data.hashing import sha256_json
from gshf_release.errors import DataError


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


FinishReason = Literal["stop", "length"]
SampleEnd = Literal["stop", "length", "too long"]
TOO_LONG: Final = "too long"
"""What a sample has for a finish reason where there is no response: prompt and answer do not fit the policy's context."""
Parsed = TypeVar("Parsed")

GROUP = 4096
"""Rows of a row group in a Parquet file."""

_ARROW: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    list[int]: pa.list_(pa.int32()),
    list[Message]: pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
}


@cache
def _schema(row: type[Row]) -> pa.Schema:
    hints = typing.get_type_hints(row)
    return pa.schema([_field(field.name, hints[field.name]) for field in fields(row)])  # type: ignore[arg-type]


def _optional(row: type[Row]) -> set[str]:
    """Return the columns that a file of an earlier version may lack: they have a default."""
    return {field.name for field in fields(row) if field.default is not MISSING}  # type: ignore[arg-type]


def _field(name: str, hint: Any) -> pa.Field:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kind = options[0] if optional else hint
    if typing.get_origin(kind) is Literal:
        kind = str
    return pa.field(name, _ARROW[kind], nullable=optional)


class Row:
    """Base of all rows: reads and writes Parquet files of its own schema."""

    @classmethod
    def schema(cls) -> pa.Schema:
        """Return the Parquet schema that follows from the annotations."""
        return _schema(cls)  # type: ignore[arg-type]

    @classmethod
    def write(cls, rows: Iterable[Self], path: Path) -> None:
        """Write `rows` as one Parquet file, holding `GROUP` of them at a time; equal rows give equal bytes."""
        left, schema = iter(rows), cls.schema()
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            while group := list(itertools.islice(left, GROUP)):
                columns = [pa.array([getattr(row, field.name) for row in group], field.type) for field in schema]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))

    @classmethod
    def read(cls, *paths: Path) -> list[Self]:
        """Return the rows of the files in order; a column with a default may be missing.

        Raises:
            DataError: A file is damaged or has another schema.
        """
        return [row for path in paths for row in cls.scan(path)]

    @classmethod
    def scan(cls, path: Path) -> Iterator[Self]:
        """Yield the rows of a file in order, holding those of one row group at a time.

        Raises:
            DataError: The file is damaged or has another schema.
        """
        with cls._opened(path) as file:
            for group in range(file.num_row_groups):
                yield from cls._rows(file.read_row_group(group))

    @classmethod
    def read_part(cls, path: Path, start: int, stop: int) -> list[Self]:
        """Return the rows from `start` up to `stop` of a file; a shard that reads its own alone costs the same in a long file.

        Raises:
            DataError: The file is damaged or has another schema.
        """
        found: list[Self] = []
        with cls._opened(path) as file:
            begin = 0
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                if begin < stop and start < end:
                    table = file.read_row_group(group)
                    found += cls._rows(table.slice(max(0, start - begin), min(stop, end) - max(start, begin)))
                begin = end
        return found

    @classmethod
    def read_where(cls, path: Path, column: str, values: Collection[str]) -> list[Self]:
        """Return the rows of a file whose `column` is one of `values`, in order.

        Raises:
            DataError: The file is damaged or has another schema.
        """
        found: list[Self] = []
        wanted = pa.array(sorted(values), pa.string())
        with cls._opened(path) as file:
            mask = pc.is_in(file.read([column])[column], value_set=wanted)
            begin = 0
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                chosen = mask.slice(begin, end - begin)
                if pc.any(chosen).as_py():
                    found += cls._rows(file.read_row_group(group).filter(chosen))
                begin = end
        return found

    @classmethod
    def _rows(cls, table: pa.Table) -> list[Self]:
        defaults = {field.name: field.default for field in fields(cls)}  # type: ignore[arg-type]
        columns = [
            _values(table[name]) if name in table.schema.names else itertools.repeat(default)
            for name, default in defaults.items()
        ]
        return [cls(*values) for values in zip(*columns, strict=False)]

    @classmethod
    @contextlib.contextmanager
    def _opened(cls, path: Path) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                known = [name for name in cls.schema().names if name in names or name not in _optional(cls)]
                if names != known:
                    raise DataError(f"{path} has the columns {names}, not {cls.schema().names}.")
                yield file
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a readable Parquet file: {error}.") from error


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column as Python values; lists of ids at once, for one by one they take most of the time of reading."""
    if column.type != _ARROW[list[int]]:
        values: list[Any] = column.to_pylist()
        return values
    lists = column.combine_chunks()
    ids, lengths = lists.flatten().to_numpy().tolist(), lists.value_lengths().to_numpy().tolist()
    ends = itertools.accumulate(lengths, initial=0)
    return [ids[begin:end] for begin, end in itertools.pairwise(ends)]


@dataclass(frozen=True, slots=True)
class Prompt(Row):
    """One conversation that waits for an answer."""

    prompt_id: str
    """First 16 hex digits of the sha256 of the messages: the same prompt has the same id in every run."""
    messages: list[Message]

    @classmethod
    def of(cls, messages: list[Message]) -> Self:
        """Return the prompt of `messages`, identified by their content."""
        return cls(prompt_id=sha256_json(messages)[:16], messages=messages)


@dataclass(frozen=True, slots=True)
class Sample(Row):
    """One response of a policy to a prompt, as token ids: the currency of policy, reference and training."""

    prompt_id: str
    sample_index: int
    decoding: str
    """`greedy`, or `T=0.7` and so on."""
    temperature: float
    prompt_ids: list[int]
    completion_ids: list[int]
    """Ends with an EOS id if `finish_reason` is `stop`, and never otherwise."""
    text: str
    finish_reason: SampleEnd
    """`too long` marks a prompt that was dropped: there is no response, and the completion is empty."""
    policy_sha256: str

    @property
    def answered(self) -> bool:
        """Return whether there is a response at all."""
        return self.finish_reason != TOO_LONG


@dataclass(frozen=True, slots=True)
class Score(Row):
    """Records what a scorer gives one response."""

    prompt_id: str
    sample_index: int
    reward: float
    scorer_sha256: str
    deviation: float | None = None
    """Standard deviation (ddof 1) of the members' scores where the scorer is an ensemble."""


@dataclass(frozen=True, slots=True)
class RuleCheck(Row):
    """Records whether one response keeps one of the rules that its prompt states."""

    prompt_id: str
    sample_index: int
    decoding: str
    rule: str
    kept: bool
    required: bool
    """A response that breaks it scores zero."""


@dataclass(frozen=True, slots=True)
class LogRatio(Row):
    """Summed log-probabilities (nats) of one response under the policy that drew it and under the base."""

    prompt_id: str
    sample_index: int
    logp_policy: float
    logp_base: float


@dataclass(frozen=True, slots=True)
class Winner(Row):
    """The best response to one prompt, which RAFT trains on."""

    prompt_id: str
    iteration: int
    prompt_ids: list[int]
    completion_ids: list[int]
    text: str
    sample_index: int
    reward: float
    policy_sha256: str


@dataclass(frozen=True, slots=True)
class Pair(Row):
    """A preference pair: the chosen and the rejected response to one prompt, with where they came from."""

    prompt_id: str
    iteration: int
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_text: str
    rejected_text: str
    chosen_index: int
    rejected_index: int
    chosen_reward: float
    rejected_reward: float
    policy_sha256: str
    chosen_deviation: float | None = None
    """Standard deviation of the reward over the members of an ensemble."""
    rejected_deviation: float | None = None


@dataclass(frozen=True, slots=True)
class ReferenceLogProbability(Row):
    """Summed log-probabilities (nats) of a pair's two completions under the reference policy."""

    prompt_id: str
    chosen_logp: float
    rejected_logp: float
    reference_sha256: str


@dataclass(frozen=True, slots=True)
class Contrast(Row):
    """A training pair of a stand-in scorer: an answer and a worse one, by construction."""

    prompt_id: str
    kind: str
    messages: list[Message]
    better: str
    worse: str
    held_out: bool


@dataclass(frozen=True, slots=True)
class ContrastScore(Row):
    """Records what a stand-in scorer gives the two sides of a held-out contrast."""

    prompt_id: str
    kind: str
    better_score: float
    worse_score: float


@dataclass(frozen=True, slots=True)
class PreferenceScore(Row):
    """Records what a reward model gives the two sides of a held-out preference, and how long they are in its tokens."""

    prompt_id: str
    chosen_score: float
    rejected_score: float
    chosen_tokens: int
    rejected_tokens: int


@dataclass(frozen=True, slots=True)
class Trace(Row):
    """Token statistics of one response under the policy that made it and under the base (nats, summed over tokens)."""

    prompt_id: str
    sample_index: int
    tokens: int
    logp_policy: float
    logp_base: float
    entropy: float
    kl: float
    """Exact next-token KL(policy || base), summed along the response."""
    kl_k3: float
    """Schulman's k3 estimate of the same, from the sampled tokens alone."""
    kl_rounding: float
    """KL(FP32 policy || its BF16 cast) along the response."""


@dataclass(frozen=True, slots=True)
class Spread(Row):
    """Records how the sampled responses to one prompt differ from each other."""

    prompt_id: str
    responses: int
    repeated: int
    """Responses whose text another response to the same prompt has too."""
    length_reward: float | None
    """Pearson's correlation of length in tokens and reward; None if either does not vary."""


@dataclass(frozen=True, slots=True)
class Judgment(Row):
    """One comparison of a model's answer with the baseline's answer to the same prompt."""

    prompt_id: str
    decoding: str
    preference: float
    """1 if the model's answer is preferred, 0 if the baseline's, 0.5 for a tie."""
    model_score: float
    baseline_score: float
    annotator: str
