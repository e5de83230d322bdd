"""Rows of prompts, answers and preferences in the forms that the field's data sets have: one parser and one table of columns.

`COLUMNS` says what each known column is. A row is read by what its columns claim to be, never by the name of a data set. No
column is dropped without a word: it is read, or the row is refused, or it is counted as unread and named on the terminal. What
changes the meaning of a prompt (a system text, an input, earlier turns, tools, images) is never only named. docs/data.md shows
every form with an example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from gshf_release.data import dataset_files
from gshf_release.data.dataset_files import ColumnUse, OnBadRow, Rows
from gshf_release.data.records import Message, Prompt
from gshf_release.data.turns import REFUSED, empty, parse_turn

Parsed = TypeVar("Parsed")
Kind = Literal["question", "turns", "system", "input", "history", "answer", "side", "refused"]

PROMPT_EXAMPLE = '{"prompt": "Why is the sky blue?"}'
PREFERENCE_EXAMPLE = '{"prompt": "Why is the sky blue?", "chosen": "Air scatters blue light.", "rejected": "No."}'
CONVERSATION_EXAMPLE = '{"prompt": "Why is the sky blue?", "response": "Air scatters blue light."}'

QUESTIONS = ("prompt", "instruction", "question", "context_messages")
TEXTS = QUESTIONS[:3]
TURNS = ("messages", "conversations", "conversation")
ANSWERS = ("response", "completion", "output")
SIDES = ("chosen", "rejected")
COLUMNS: dict[str, Kind] = {
    **dict.fromkeys(QUESTIONS, "question"),
    **dict.fromkeys(TURNS, "turns"),
    **dict.fromkeys(("system", "system_prompt", "system_message"), "system"),
    "input": "input",
    "history": "history",
    **dict.fromkeys(ANSWERS, "answer"),
    **dict.fromkeys(SIDES, "side"),
    **dict.fromkeys(REFUSED, "refused"),
}
"""Every known column of a row. `question`: a text or turns that wait for an answer; `turns`: a conversation, with or without
the answer; `system`, `input`, `history` join the question; `answer` and `side` answer it."""
PLAIN = ("prompt", "messages", *ANSWERS, *SIDES)
"""Columns whose reading goes without saying."""


class Preference(NamedTuple):
    """A conversation that waits for an answer, with a better and a worse one."""

    messages: list[Message]
    chosen: str
    rejected: str


def read_rows(
    path: Path,
    parse: Callable[[dict[str, Any], ColumnUse], Parsed],
    *,
    example: str,
    on_bad_row: OnBadRow = "fail",
    skip: str = dataset_files.SKIP,
    split: str = "train",
) -> Rows[Parsed]:
    """Return the parsed rows of a file or a data set's folder, as `datafiles.read_rows`, and name the columns on the terminal.

    Raises:
        DataError: A file cannot be read, a row is bad, or no good row is left.
    """
    use = ColumnUse()
    rows = dataset_files.read_rows(
        path, lambda row: parse(row, use), example=example, on_bad_row=on_bad_row, skip=skip, split=split, columns=use
    )
    use.tell(path, PLAIN)
    return rows


def parse_prompt(row: Any, use: ColumnUse | None = None) -> Prompt:
    """Return the conversation of a row that waits for an answer.

    Args:
        row: A row of a file of prompts.
        use: Counts which columns were read.

    Raises:
        ValueError: The row has none of the forms, or has something that cannot be read; names the column.
    """
    reading = _Reading(row)
    messages = reading.before()
    if messages[-1]["role"] != "user":
        raise ValueError("the last turn must be the user's")
    reading.count(use)
    return Prompt.of(messages)


def parse_preference(row: Any, use: ColumnUse | None = None) -> Preference:
    """Return the preference of a row.

    `chosen` and `rejected` are texts or turns: the answer alone, or a whole conversation, which must then agree with the other
    columns that hold the prompt.

    Raises:
        ValueError: The row has none of the forms, a side is empty, or the sides answer different conversations.
    """
    reading = _Reading(row)
    chosen, rejected = (reading.answered(name) for name in SIDES)
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected answer different conversations")
    reading.count(use, chosen[-1]["content"], rejected[-1]["content"])
    return Preference(chosen[:-1], chosen[-1]["content"], rejected[-1]["content"])


def parse_conversation(row: Any, use: ColumnUse | None = None) -> list[Message]:
    """Return the conversation of a row whose last turn, the assistant's, is an answer.

    Raises:
        ValueError: The row has none of the forms, or the last turn is not a non-empty one of the assistant.
    """
    reading = _Reading(row)
    answers = [*(name for name in ANSWERS if name in row and not empty(row[name])), *reading.layout.turns]
    if not answers:
        raise ValueError(f"expected an answer under {_either(ANSWERS)}, or 'messages' that end with it")
    messages = reading.answered(answers[0])
    reading.count(use, messages[-1]["content"])
    return messages


class _Layout(NamedTuple):
    """The known columns of rows with the same keys, by kind."""

    columns: tuple[str, ...]
    questions: tuple[str, ...]
    turns: tuple[str, ...]
    joined: tuple[str, ...]
    """Those of the kinds `system`, `input` and `history`."""
    refused: tuple[str, ...]
    only: str
    """The one column of the kinds `question`, `turns` and `joined`; empty if there are several or none."""


@lru_cache(maxsize=1024)
def _layout(columns: tuple[str, ...]) -> _Layout:
    def those(*kinds: Kind) -> tuple[str, ...]:
        return tuple(name for name in COLUMNS if name in columns and COLUMNS[name] in kinds)

    questions, turns, joined = those("question"), those("turns"), those("system", "input", "history")
    asking = (*questions, *turns, *joined)
    only = questions[0] if len(asking) == len(questions) == 1 else ""
    return _Layout(columns, questions, turns, joined, those("refused"), only)


@lru_cache(maxsize=1024)
def _unread(
    columns: tuple[str, ...], read: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the columns that were read, and of the others the unknown and the known."""
    others = [name for name in columns if name not in read]
    known = tuple(name for name in others if name in COLUMNS)
    return tuple(name for name in columns if name in read), tuple(name for name in others if name not in COLUMNS), known


class _Reading:
    """One row while it is read: which of its columns were taken."""

    __slots__ = ("_before", "_beyond", "_earlier", "_extra", "_known", "_read", "_waited", "layout", "row")

    def __init__(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise ValueError(f"expected an object, found {type(row).__name__}")
        self.row: dict[str, Any] = row
        self.layout = _layout(tuple(row))
        self._read: list[str] = []
        self._beyond: dict[str, str] = {}
        """The answer, or later turns, that a conversation beside a question has, by column."""
        self._extra: list[str] = []
        """Keys of turns that were not read, as `messages.id`."""
        self._known: list[Message] | None = None
        self._earlier: list[Any] = []
        """The turns before an answer as they came, and as they were read."""
        self._before: list[Message] = []
        self._waited: dict[str, list[Message]] = {}
        for name in self.layout.refused:
            if not empty(row[name]):
                self._refuse(name)

    def _refuse(self, name: str) -> None:
        """Refuse a column that cannot be read, unless it is RLHFlow's `context`, which repeats `context_messages`."""
        value = self.row[name]
        repeats = name == "context" and isinstance(value, str) and not empty(self.row.get("context_messages"))
        if repeats and self.turns("context_messages")[-1]["content"].strip() in value:
            self._read.append(name)
            return
        raise ValueError(f"the column {name!r} cannot be read: {REFUSED[name]}")

    def before(self) -> list[Message]:
        """Return the turns that wait for an answer, the system turn first.

        Raises:
            ValueError: No column holds them, or two contradict each other.
        """
        if self._known is None:
            self._known = self._beside("")
            if not self._known:
                raise ValueError(self._nothing())
        return list(self._known)

    def answered(self, name: str) -> list[Message]:
        """Return the whole conversation that ends with the answer under `name`: a text, or turns.

        Turns may repeat what the other columns say before the answer, with more turns or with fewer.

        Raises:
            ValueError: There is none, it answers no one, or its own turns contradict the other columns.
        """
        value = self.row.get(name)
        if (
            isinstance(value, list) and self._earlier and value[:-1] == self._earlier
        ):  # the sides of a preference begin alike
            before, last = self._before, parse_turn(value[-1], name, self._extra)
        else:
            before, last = self._account(name, value)
        if last["role"] != "assistant" or not last["content"].strip():
            raise ValueError(f"expected an answer: the last turn under {name!r} must be the assistant's, and not empty")
        if before[-1]["role"] != "user":
            raise ValueError(f"{name!r} answers no one: the turn before the last must be the user's")
        self._read.append(name)
        return [*before, last]

    def _account(self, name: str, value: Any) -> tuple[list[Message], Message]:
        """Return what comes before the answer under `name`, and the answer's own last turn."""
        if isinstance(value, str):
            return self.before(), {"role": "assistant", "content": value}
        *own, last = self.turns(name)
        if not own or own[0]["role"] == "assistant":
            return [*self.before(), *own], last
        before, _ = _agreed(self._beside(name) or self._joined(own), own, self.layout, name)
        if isinstance(value, list):
            self._earlier, self._before = value[:-1], before
        return before, last

    def count(self, use: ColumnUse | None, *answers: str) -> None:
        """Count the row's columns; a conversation that ends in none of `answers` was not read to its end."""
        if use is None:
            return
        taken = self._read
        if self._beyond:
            taken = [name for name in taken if self._beyond.get(name) in (None, *answers)]
        read, unread, known = _unread(self.layout.columns, tuple(taken))
        unsaid = tuple(name for name in known if empty(self.row[name])) if known else ()
        if known or self._extra:
            unread = (*unread, *(name for name in known if name not in unsaid), *dict.fromkeys(self._extra))
        use.add(read, unread, unsaid)

    def turns(self, name: str) -> list[Message]:
        """Return the turns under a column.

        Raises:
            ValueError: They are none, or one of them cannot be read.
        """
        value = self.row.get(name)
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list) or not value:
            raise ValueError(f"expected a text or turns under {name!r}")
        return [parse_turn(turn, name, self._extra) for turn in value]

    def _beside(self, answer: str) -> list[Message]:
        """Return what other columns than the answer's say comes before it; both sides of a preference ask for the same."""
        key = answer if answer in self.layout.turns else ""
        if key not in self._waited:
            self._waited[key] = self._joined(self._waiting(answer))
        return self._waited[key]

    def _waiting(self, answer: str) -> list[Message]:
        """Return the turns that wait for an answer, as the columns of questions and conversations have them: they must agree.

        Args:
            answer: A column that holds the answer and is left out; a conversation that stands beside it, or beside a question,
                may end with an answer of its own, which is not taken. Empty if the answer is a text or not wanted.
        """
        if self.layout.only:
            text = self.row[self.layout.only]
            if isinstance(text, str) and text and not text.isspace():  # most rows: one text, and nothing that joins it
                self._read.append(self.layout.only)
                return [{"role": "user", "content": text}]
        found: list[Message] = []
        for name in self.layout.questions:
            if not empty(self.row[name]):
                turns = self._question(name)
                found = _agreed(found, turns, self.layout, name)[0] if found else turns
                self._read.append(name)
        self._check_input(found)
        for name in self.layout.turns:
            if name == answer or empty(self.row[name]):
                continue
            turns = self.turns(name)
            self._read.append(name)
            ends = len(turns) > 1 and turns[-1]["role"] == "assistant"
            if ends and (found or answer or self._repeats_answer(turns[-1]["content"])):
                self._beyond[name] = turns.pop()["content"]
            merged, longer = _agreed(found, turns, self.layout, name) if found else (turns, False)
            if longer:
                self._beyond[name] = ""
            else:
                found = merged
        return found

    def _repeats_answer(self, text: str) -> bool:
        return any(self.row.get(name) == text for name in (*ANSWERS, *SIDES))

    def _question(self, name: str) -> list[Message]:
        value, added = self.row[name], self.row.get("input")
        if not isinstance(value, str):
            return self.turns(name)
        if isinstance(added, str) and added.strip():
            value = f"{value}\n\n{added}"
        return [Message(role="user", content=value)]

    def _check_input(self, found: Sequence[Message]) -> None:
        """Refuse an `input` that no text took in."""
        added = self.row.get("input")
        if empty(added):
            return
        if not isinstance(added, str):
            raise ValueError("expected a text under 'input'")
        if not any(isinstance(self.row[name], str) and not empty(self.row[name]) for name in self.layout.questions):
            raise ValueError(f"the column 'input' is joined to a text under {_either(TEXTS)}; there is none")

    def _joined(self, turns: list[Message]) -> list[Message]:
        """Return the turns with system text and history before them."""
        if not self.layout.joined or not turns:
            return turns
        system = turns[:1] if turns[0]["role"] == "system" else []
        rest = turns[len(system) :]
        for name in self.layout.joined:
            value = self.row[name]
            if empty(value):
                continue
            self._read.append(name)
            if COLUMNS[name] == "history":
                rest = [*self._history(name), *rest]
            elif COLUMNS[name] == "system":
                system = _system(value, name, system)
        return [*system, *rest]

    def _history(self, name: str) -> list[Message]:
        """Return earlier turns: `[[question, answer], ...]` as LLaMA-Factory has them, or turns."""
        value = self.row[name]
        if isinstance(value, list) and isinstance(value[0], dict):
            return self.turns(name)
        pairs = value if isinstance(value, list) else [None]
        if not all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_text, pair)) for pair in pairs):
            raise ValueError(f"expected pairs of a question and its answer under {name!r}")
        return [
            Message(role=role, content=text)
            for pair in pairs
            for role, text in zip(("user", "assistant"), pair or (), strict=True)
        ]

    def _nothing(self) -> str:
        present = [name for name in (*self.layout.questions, *self.layout.turns) if self.row[name] is not None]
        if not present:
            return f"expected a text or turns under {_either(TEXTS)}, or turns under 'messages' or 'conversations'"
        said = isinstance(self.row[present[0]], str | list)
        return f"{present[0]!r} is empty" if said else f"expected a text or turns under {present[0]!r}"


def _system(value: Any, name: str, before: list[Message]) -> list[Message]:
    if not isinstance(value, str):
        raise ValueError(f"expected a text under {name!r}")
    if before and before[0]["content"].strip() and not _same_text(before[0]["content"], value):
        raise ValueError(f"{name!r} ({_begin(value)}) contradicts the system turn ({_begin(before[0]['content'])})")
    return [Message(role="system", content=value)]


def _agreed(known: list[Message], own: list[Message], layout: _Layout, name: str) -> tuple[list[Message], bool]:
    """Return the fuller of two accounts of the same turns, and whether `own` begins with all of `known` and goes on.

    Raises:
        ValueError: Neither ends with the other: they are different conversations.
    """
    if known == own:
        return known, False
    if _equal(known[-len(own) :], own):
        return known, False
    if _equal(own[-len(known) :], known):
        return own, False
    if _equal(own[: len(known)], known):
        return own, True
    others = [other for other in (*layout.questions, *layout.turns) if other != name] or list(layout.joined)
    at = next((at for at, (one, other) in enumerate(zip(known, own, strict=False)) if not _equal([one], [other])), 0)
    raise ValueError(
        f"{name!r} ({_begin(own[at]['content'])}) contradicts {others[0]!r} ({_begin(known[at]['content'])}): "
        "they are different conversations"
    )


def _equal(turns: Sequence[Message], others: Sequence[Message]) -> bool:
    return len(turns) == len(others) and all(
        one["role"] == other["role"] and _same_text(one["content"], other["content"])
        for one, other in zip(turns, others, strict=True)
    )


def _same_text(text: str, other: str) -> bool:
    """Return whether two texts differ in nothing but spaces."""
    return text == other or text.split() == other.split()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"


def _begin(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
