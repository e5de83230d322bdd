"""Record which prompts a run used, and in which role, so that another run can leave them alone.

Inside a run roles and iterations are disjoint by construction (`split.py`). Between runs the manifest `prompts/used` serves: a
recipe names earlier runs in `prompts.exclude`, and none of their prompts can be drawn again, whatever source, seed or sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gshf_release.data import dataset_files
from gshf_release.data.dataset_files import OnBadRow, Rows
from gshf_release.data.dataset_rows import PROMPT_EXAMPLE, parse_prompt, read_rows
from gshf_release.data.hashing import sha256_json
from gshf_release.data.records import Message, Prompt, Row
from gshf_release.errors import RecipeError
from gshf_release.prompts.pool import Accepted
from gshf_release.recipe import Recipe
from gshf_release.run.context import StageContext
from gshf_release.run.directory import DOCUMENT
from gshf_release.run.stage import Input, Parameters, Stage

STAGE = "prompts/used"
FILE = "used.parquet"
WRITTEN = ("prompts/written", "accepted.parquet")
"""Where a run of `gshf-release prompts` keeps what it accepted."""
EVALUATING = ("validation", "test")
OFFLINE = "offline"
"""The role of prompts that came with preference pairs from elsewhere."""
UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class PromptUse(Row):
    """One prompt of a run and the role it had there."""

    prompt_id: str
    role: str
    """`validation`, `test`, `reward`, `second_scorer`, `iteration-1`, ..., `offline`"""
    messages: list[Message]


class UsedParameters(Parameters):
    """Say which stages put out the prompts of which role, and what they call the file."""

    roles: tuple[tuple[str, str], ...]
    file: str


def declare_prompt_usage(roles: Sequence[tuple[str, str]], file: str) -> Stage:
    """Declare the manifest.

    Args:
        roles: `(role, stage that puts out its prompts)`.
        file: What these stages call them.
    """
    return Stage(
        name=STAGE,
        identity="record-used-prompts/1",
        work="gshf_release.prompts.usage:write_prompt_usage",
        kind="other",
        inputs=tuple(Input(stage, file) for _, stage in roles),
        outputs=(FILE,),
        parameters=UsedParameters(roles=tuple(roles), file=file).as_json(),
    )


def write_prompt_usage(context: StageContext) -> None:
    """Write who used what."""
    of = context.parameters(UsedParameters)
    rows = [
        PromptUse(prompt.prompt_id, role, prompt.messages)
        for role, stage in of.roles
        for prompt in Prompt.read(context.input(stage, of.file))
    ]
    PromptUse.write(rows, context.output(FILE))


@dataclass(frozen=True, slots=True)
class ExcludedPrompts:
    """The prompts of earlier runs and of files."""

    rows: tuple[PromptUse, ...]
    bad: int = 0
    """Rows of files that were skipped because they are bad."""

    @property
    def ids(self) -> frozenset[str]:
        """Return what identifies them, whatever system turn they had."""
        return frozenset(content_id(row.messages) for row in self.rows)

    @property
    def texts(self) -> list[str]:
        """Their text, for comparison."""
        return [user_text(row.messages) for row in self.rows]

    @property
    def evaluating(self) -> frozenset[str]:
        """Return what identifies those that chose or were reported (validation, test): no writer may be shown them."""
        return frozenset(content_id(row.messages) for row in self.rows if row.role in EVALUATING)

    @property
    def sha256(self) -> str:
        """Content hash, for fingerprints."""
        return sha256_json(sorted((content_id(row.messages), row.role) for row in self.rows))


def excluded(recipe: Recipe) -> ExcludedPrompts:
    """Return what `prompts.exclude` names.

    Raises:
        RecipeError: An entry is neither a run with a list of prompts nor a file.
        DataError: A file has a bad row.
    """
    found: list[PromptUse] = []
    bad = 0
    for entry in recipe.prompts.exclude:
        path = Path(entry).expanduser()
        if path.is_file():
            rows = _read_file(path, recipe.prompts.on_bad_row)
            found += [PromptUse(row.prompt_id, UNKNOWN, row.messages) for row in rows.values]
            bad += len(rows.bad)
        else:
            found += _read_run(path)
    return ExcludedPrompts(tuple(found), bad)


def content_id(messages: Sequence[Message]) -> str:
    """Return the id of a conversation without its system turn: two runs may have put different ones before a prompt."""
    return Prompt.of([turn for turn in messages if turn["role"] != "system"]).prompt_id


def user_text(messages: Sequence[Message]) -> str:
    """Return what the user says in a conversation, as one text."""
    return "\n".join(turn["content"] for turn in messages if turn["role"] == "user")


def _read_file(path: Path, on_bad_row: OnBadRow) -> Rows[Prompt]:
    skip = dataset_files.SKIP_IN_RECIPE
    return read_rows(path, parse_prompt, example=PROMPT_EXAMPLE, on_bad_row=on_bad_row, skip=skip)


def _read_run(path: Path) -> list[PromptUse]:
    manifest = path / STAGE / FILE
    written = path.joinpath(*WRITTEN)
    if manifest.is_file():
        return PromptUse.read(manifest)
    if written.is_file():
        return [
            PromptUse(row.prompt_id, UNKNOWN, [Message(role="user", content=row.prompt)])
            for row in Accepted.read(written)
        ]
    what = "is a run that has not divided its prompts yet" if (path / DOCUMENT).is_file() else "is no file and no run"
    raise RecipeError(f"prompts.exclude: {path} {what}.", hint="Name a run directory or a JSONL file of prompts.")
