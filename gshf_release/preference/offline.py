"""Preference pairs from elsewhere, for offline and hybrid runs. Such a run is no longer one without external responses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from gshf_release.data import dataset_rows
from gshf_release.data.dataset_files import SKIP_IN_RECIPE, ColumnUse, OnBadRow, Rows
from gshf_release.data.dataset_rows import PREFERENCE_EXAMPLE, read_rows
from gshf_release.data.records import Pair, Prompt
from gshf_release.data.results import Cell
from gshf_release.errors import DataError, RecipeError
from gshf_release.models.chat_tokenizer import KEYS as RENDERING
from gshf_release.models.chat_tokenizer import render
from gshf_release.models.checkpoints import load_tokenizer
from gshf_release.prompts.split import FILE, PromptFileParameters, evaluation_path, read_prompts, with_system
from gshf_release.prompts.usage import content_id
from gshf_release.recipe import Pairs
from gshf_release.run import input_copies
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory, read_json, write_json
from gshf_release.run.stage import Input, Stage

IDENTITY = "read-offline-pairs/1"
SOURCE = "offline"
KEY = "pairs.offline"
NO_INDEX = -1
HELD_OUT = ("prompts/validation", "prompts/test")
Reason = Literal["bad row", "held-out prompt", "identical text", "identical ids", "too long"]


class Preference(NamedTuple):
    """One row of a preference data set."""

    prompt: Prompt
    chosen: str
    rejected: str


def declare_offline_pairs(file: PromptFileParameters) -> Stage:
    """Declare what puts out the pairs of `pairs.offline` and their prompts.

    Args:
        file: What is known of that file or folder.
    """
    return Stage(
        name=f"{SOURCE}/pairs",
        identity=IDENTITY,
        work="gshf_release.preference.offline:write_pairs",
        kind="other",
        inputs=(Input("base", "model"), *(Input(name, FILE) for name in HELD_OUT)),
        outputs=("pairs.parquet", FILE, "dropped.json"),
        keys=("pairs.max_tokens", "evaluation.prompts", "prompts.system", "prompts.on_bad_row", *RENDERING),
        parameters=file.as_json(),
        numbers="gshf_release.preference.offline:offline_pair_cells",
    )


def source_path(run: RunDirectory | None, reference: str) -> Path:
    """Return the file or folder of `pairs.offline`, or the run's copy of it where it is gone.

    Raises:
        RecipeError: There is neither.
    """

    def look() -> Path:
        path = Path(reference).expanduser()
        if not path.exists():
            raise RecipeError(f"{KEY}: {reference} does not exist.")
        return path

    return input_copies.find_input(run, KEY, reference, look)


def parse_preference(row: Any, use: ColumnUse | None = None) -> Preference:
    """Return a row in one of the forms of `conversations`.

    Raises:
        ValueError: It has another form.
    """
    messages, chosen, rejected = dataset_rows.parse_preference(row, use)
    return Preference(Prompt.of(messages), chosen, rejected)


def read_preferences(path: Path, on_bad_row: OnBadRow = "fail") -> Rows[Preference]:
    """Return the rows of a file or a data set's folder.

    Raises:
        DataError: A row is bad (file and line are named), or the file cannot be read.
    """
    return read_rows(path, parse_preference, example=PREFERENCE_EXAMPLE, on_bad_row=on_bad_row, skip=SKIP_IN_RECIPE)


def write_pairs(context: StageContext) -> None:
    """Write the pairs in the run's token ids, each answer with its EOS, their prompts, and the dropped rows by reason.

    Raises:
        DataError: A row is bad (file and line are named), or none is left.
    """
    path, rules = source_path(context.run, str(context.recipe.pairs.offline)), context.recipe.pairs
    tokenizer = load_tokenizer(context.input("base", "model"))
    held_out, today = _held_out(context), context.today
    pairs: list[Pair] = []
    prompts: dict[str, Prompt] = {}
    counts: Counter[str] = Counter()
    rows = read_preferences(path, context.recipe.prompts.on_bad_row)
    counts["bad row"] = len(rows.bad)
    for row in rows.values:
        prompt = with_system(row.prompt, context.recipe.prompts.system)
        prompt_ids = render(tokenizer, prompt.messages, context.recipe.prompts, today=today)
        pair = _pair(tokenizer, prompt.prompt_id, prompt_ids, row)
        reason = "held-out prompt" if content_id(prompt.messages) in held_out else _degenerate(pair, rules)
        if reason is None:
            pairs.append(pair)
            prompts[prompt.prompt_id] = prompt
        else:
            counts[reason] += 1
    if not pairs:
        raise DataError(f"{path} has no usable preference pair.", hint=f"Dropped: {dict(counts)}.")
    Pair.write(pairs, context.output("pairs.parquet"))
    Prompt.write(list(prompts.values()), context.output(FILE))
    dropped = {reason: counts[reason] for reason in get_args(Reason)}
    write_json(context.output("dropped.json"), {"rows": len(pairs) + sum(counts.values()), "dropped": dropped})


def _held_out(context: StageContext) -> set[str]:
    """Return what identifies the prompts that nothing is trained on, whatever system turn stands before them."""
    held_out = [prompt for name in HELD_OUT for prompt in Prompt.read(context.input(name, FILE))]
    reference = context.recipe.evaluation.prompts
    if reference is not None:
        path = evaluation_path(context.run, reference)
        held_out += read_prompts(path, on_bad_row=context.recipe.prompts.on_bad_row)
    return {content_id(prompt.messages) for prompt in held_out}


def offline_pair_cells(context: StageContext) -> list[Cell]:
    """Return how many pairs came from outside, and why others were dropped."""
    path = context.output("pairs.parquet")
    document = read_json(context.output("dropped.json"))
    place = {"table": "training", "row": SOURCE, "artefact": context.run.relative(path)}
    cells = [Cell(metric="external pairs", value=len(Pair.read(path)), n=document["rows"], **place)]
    return cells + [
        Cell(metric=f"dropped: {reason}", value=count, n=document["rows"], **place)
        for reason, count in document["dropped"].items()
        if count
    ]


def _pair(tokenizer: Any, prompt_id: str, prompt_ids: list[int], row: Preference) -> Pair:
    chosen, rejected = (
        [*tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], tokenizer.eos_token_id]
        for text in (row.chosen, row.rejected)
    )
    return Pair(
        prompt_id=prompt_id,
        iteration=0,
        prompt_ids=prompt_ids,
        chosen_ids=chosen,
        rejected_ids=rejected,
        chosen_text=row.chosen,
        rejected_text=row.rejected,
        chosen_index=NO_INDEX,
        rejected_index=NO_INDEX,
        chosen_reward=1.0,
        rejected_reward=0.0,
        policy_sha256=SOURCE,
    )


def _degenerate(pair: Pair, rules: Pairs) -> Reason | None:
    if pair.chosen_text.strip() == pair.rejected_text.strip():
        return "identical text"
    if pair.chosen_ids == pair.rejected_ids:
        return "identical ids"
    longest = len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))
    return "too long" if longest > rules.max_tokens else None
