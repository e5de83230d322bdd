"""What RAFT trains on: the best response to each prompt (arXiv 2304.06767), kept on disk to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from gshf_release import statistics
from gshf_release.preference.ranking import (
    Candidate,
    Unread,
    best,
    count_drops,
    drop_cells,
    finite,
    ranked_inputs,
    read_candidates,
    taking_part,
)
from gshf_release.recipe import Pairs
from gshf_release.records import Winner
from gshf_release.results import Cell, cell
from gshf_release.run.context import StageContext
from gshf_release.run.directory import read_json, write_json
from gshf_release.run.stage import Stage

FILE = "winners.parquet"
REASONS = (*get_args(Unread), "too few responses", "non-finite reward", "too long", "cut")


def declare(iteration: int, *, log_ratios: bool = False) -> Stage:
    """Declare the choice of one iteration's best responses."""
    return Stage(
        name=f"iteration-{iteration}/winners",
        work="gshf_release.preference.winners:select",
        inputs=ranked_inputs(iteration, log_ratios=log_ratios),
        outputs=(FILE, "dropped.json"),
        keys=("pairs",),
        parameters={"iteration": iteration},
        numbers="gshf_release.preference.winners:numbers",
    )


def choose(found: Sequence[Candidate], rules: Pairs, iteration: int, unread: Unread | None = None) -> Winner | str:
    """Return the best response to a prompt, or the reason why it gives none."""
    usable = taking_part(found, rules)
    if not finite(usable):
        return "non-finite reward"
    if not usable:
        return "cut" if found else unread or "too few responses"
    top = best(usable)
    sample = top.sample
    if not top.may_win:
        return "cut"
    if len(sample.prompt_ids) + len(sample.completion_ids) > rules.max_tokens:
        return "too long"
    return Winner(
        prompt_id=sample.prompt_id,
        iteration=iteration,
        prompt_ids=sample.prompt_ids,
        completion_ids=sample.completion_ids,
        text=sample.text,
        sample_index=sample.sample_index,
        reward=top.reward,
        policy_sha256=sample.policy_sha256,
    )


def select(context: StageContext) -> None:
    """Write the iteration's winners and the count of dropped prompts by reason."""
    iteration, rules = context.parameter("iteration"), context.recipe.pairs
    drawn = read_candidates(context, iteration).values()
    choices = [choose(entry.found, rules, iteration, entry.unread) for entry in drawn]
    Winner.write([entry for entry in choices if isinstance(entry, Winner)], context.output(FILE))
    reasons = [entry if isinstance(entry, str) else None for entry in choices]
    write_json(context.output("dropped.json"), count_drops(drawn, reasons, REASONS))


def numbers(context: StageContext) -> list[Cell]:
    """Return how many prompts gave a winner, why others did not, and the winners' reward."""
    path = context.output(FILE)
    winners, dropped = Winner.read(path), read_json(context.output("dropped.json"))
    place = {
        "table": "training",
        "row": f"iteration-{context.parameter('iteration')}",
        "artefact": context.run.relative(path),
    }
    cells = [Cell(metric="winners", value=len(winners), n=dropped["prompts"], **place)]
    cells += drop_cells(dropped, **place)
    if winners:
        cells.append(cell(statistics.mean([entry.reward for entry in winners]), metric="winners' reward", **place))
    return cells
