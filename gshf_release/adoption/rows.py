"""Says what a row of another tool's file is: known by its columns, and readable by the parser of prompts and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gshf_release.data.dataset_files import ColumnUse
from gshf_release.data.dataset_rows import parse_conversation, parse_preference, parse_prompt

Parse = Callable[[Any, ColumnUse], Any]

ANNOTATION = "alpaca_eval annotation"


class RowKind(NamedTuple):
    """One kind of row."""

    name: str
    required: tuple[frozenset[str], ...]
    """Sets of columns, of which a row has at least one."""
    known: frozenset[str]
    """What the kind's tools write beside them."""
    parse: Parse | None = None
    """Reads what the row says; what it refuses is of no known kind."""


def _kind(name: str, required: str, known: str, parse: Parse | None = None) -> RowKind:
    sets = tuple(frozenset(columns.split()) for columns in required.split("|"))
    return RowKind(name, sets, frozenset(known.split()), parse)


KINDS = (
    _kind(
        "preference pair",
        "chosen rejected",
        "prompt_id chosen_score rejected_score score_chosen score_rejected chosen_reward rejected_reward "
        "all_generated_responses all_rm_scores messages",
        parse_preference,
    ),
    _kind(
        "scored responses",
        "prompt responses rewards|all_generated_responses all_rm_scores",
        "prompt prompt_id responses rewards all_generated_responses all_rm_scores",
    ),
    _kind(
        ANNOTATION,
        "instruction output_1 output_2 preference",
        "generator_1 generator_2 annotator dataset price_per_example time_per_example raw_completion "
        "preference_price_per_example preference_time_per_example preference_raw_completion preference_date preference_version",
    ),
    _kind("alpaca_eval output", "instruction output", "generator dataset datasplit", parse_conversation),
    _kind(
        "FastChat pairwise judgment",
        "question_id model_1 model_2 g1_winner",
        "g2_winner judge turn tstamp g1_user_prompt g1_judgment g2_user_prompt g2_judgment",
    ),
    _kind("FastChat judgment", "question_id model judge score", "turn tstamp user_prompt judgment"),
    _kind("FastChat answer", "question_id model_id choices", "answer_id tstamp"),
)
"""What each kind's rows have; the first that fits counts. Sources: the RLHFlow and SimPO data sets, alpaca_eval 0.6.6's
model_outputs.json and annotations.json, fastchat.llm_judge's model_answer and model_judgment files."""
FORMS: tuple[tuple[str, Parse], ...] = (("conversation", parse_conversation), ("prompt", parse_prompt))
"""Rows of none of these kinds that the parser reads all the same."""
PROMPT_COLUMNS = ("context_messages", "conversation", "conversations", "instruction", "messages", "prompt", "question")


def kind_of(row: dict[str, Any], use: ColumnUse | None = None) -> str:
    """Return what a row is, by its columns.

    Args:
        row: The row.
        use: Counts its columns of known and of unknown meaning.

    Raises:
        ValueError: It is none of the kinds, or has something that cannot be read.
    """
    counted = use or ColumnUse()
    for kind in KINDS:
        if any(columns <= row.keys() for columns in kind.required):
            _count(row, kind, counted)
            return kind.name
    reason = ""
    for name, parse in FORMS if any(column in row for column in PROMPT_COLUMNS) else ():
        try:
            parse(row, counted)
        except ValueError as error:
            reason = f": {error}"
        else:
            return name
    raise ValueError(f"no known kind of row has the keys {', '.join(sorted(row)[:6])}{reason}")


def _count(row: dict[str, Any], kind: RowKind, use: ColumnUse) -> None:
    """Count the columns of a row of a kind."""
    known = kind.known.union(*kind.required)
    if kind.parse is None:
        use.add(tuple(name for name in row if name in known), tuple(name for name in row if name not in known))
        return
    own = ColumnUse()
    try:
        kind.parse(row, own)
    except ValueError as error:
        raise ValueError(f"it has the keys of the kind {kind.name!r}, but {error}") from error
    unread = tuple(name for name in own.unread if name not in known)
    use.add(tuple(name for name in row if name not in unread), unread)
