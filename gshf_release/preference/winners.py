"""Select what RAFT trains on: the best response to each prompt (arXiv 2304.06767), kept on disk to be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from gshf_release.data import statistics
from gshf_release.data.records import Winner
from gshf_release.data.results import Cell, cell
from gshf_release.preference.ranking import (
    Candidate,
    Drops,
    Unread,
    best,
    drop_cells,
    finite,
    ranked_inputs,
    read_candidates,
    taking_part,
)
from gshf_release.recipe import Pairs
from gshf_release.run.context import StageContext
from gshf_release.run.directory import read_json, write_json
from gshf_release.run.stage import Parameters, Stage, iteration_row, iteration_stage

IDENTITY = "select-winners/1"
FILE = "winners.parquet"
REASONS = (*get_args(Unread), "too few responses", "non-finite reward", "too long", "cut")


class WinnerParameters(Parameters):
    """Say whose best responses are chosen."""

    iteration: int


def declare_winners(iteration: int, *, log_ratios: bool = False) -> Stage:
    """Declare the choice of one iteration's best responses."""
    return Stage(
        name=iteration_stage(iteration, "winners"),
        identity=IDENTITY,
        work="gshf_release.preference.winners:select_winners",
        kind="other",
        inputs=ranked_inputs(iteration, log_ratios=log_ratios),
        outputs=(FILE, "dropped.json"),
        keys=("pairs",),
        parameters=WinnerParameters(iteration=iteration).as_json(),
        numbers="gshf_release.preference.winners:winner_cells",
    )


def choose_winner(
    found: Sequence[Candidate], rules: Pairs, iteration: int, unread: Unread | None = None
) -> Winner | str:
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


def select_winners(context: StageContext) -> None:
    """Write the iteration's winners and the count of dropped prompts by reason."""
    iteration, rules, drops = context.parameters(WinnerParameters).iteration, context.recipe.pairs, Drops(REASONS)

    def winners() -> Iterator[Winner]:
        for _, entry in read_candidates(context, iteration):
            choice = choose_winner(entry.found, rules, iteration, entry.unread)
            drops.add(entry, choice if isinstance(choice, str) else None)
            if isinstance(choice, Winner):
                yield choice

    Winner.write(winners(), context.output(FILE))
    write_json(context.output("dropped.json"), drops.document())


def winner_cells(context: StageContext) -> list[Cell]:
    """Return how many prompts gave a winner, why others did not, and the winners' reward."""
    path = context.output(FILE)
    rewards, dropped = [winner.reward for winner in Winner.scan(path)], read_json(context.output("dropped.json"))
    place = {
        "table": "training",
        "row": iteration_row(context.parameters(WinnerParameters).iteration),
        "artefact": context.run.relative(path),
    }
    cells = [Cell(metric="winners", value=len(rewards), n=dropped["prompts"], **place)]
    cells += drop_cells(dropped, **place)
    if rewards:
        cells.append(cell(statistics.mean(rewards), metric="winners' reward", **place))
    return cells
