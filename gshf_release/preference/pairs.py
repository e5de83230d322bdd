"""From n ranked responses to at most one pair a prompt, and the reasons why a prompt gives none."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from gshf_release.data import statistics
from gshf_release.data.hashing import seed_from
from gshf_release.data.records import Pair
from gshf_release.data.results import Cell, cell
from gshf_release.preference.pair_rules import CHOICES, ChosenRejected
from gshf_release.preference.ranking import (
    Candidate,
    Drops,
    PromptResponses,
    Unread,
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

IDENTITY = "select-pairs/1"

Reason = Literal[
    "prompt too long",
    "response too long to score",
    "too few responses",
    "too few accepted",
    "non-finite reward",
    "identical text",
    "identical ids",
    "tied rewards",
    "small margin",
    "too long",
    "cut",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class Choice(NamedTuple):
    """A pair, or the reason why there is none."""

    pair: Pair | None
    reason: Reason | None


def choose_pair(
    found: Sequence[Candidate], rules: Pairs, iteration: int, draw: random.Random, unread: Unread | None = None
) -> Choice:
    """Return the pair that the recipe's way of choosing gives for one prompt, or why there is none.

    With `cut: lose`, a response that ended beats one that was cut, whatever their rewards. Ties are broken by the lowest sample
    index on both sides.

    Args:
        found: The candidates for one prompt.
        rules: The recipe's rules.
        iteration: Recorded in the pair.
        draw: The prompt's own source of random numbers.
        unread: Why responses are missing among the candidates, if some are.
    """
    usable = taking_part(found, rules)
    if not finite(usable):
        return Choice(None, "non-finite reward")
    if len(usable) < 2:
        return Choice(None, "cut" if len(found) > 1 else unread or "too few responses")
    two = CHOICES[rules.choice](usable, rules, draw)
    if two is None:
        return Choice(None, "too few accepted")
    reason = _degenerate(two, rules)
    return Choice(None, reason) if reason is not None else Choice(_pair(two, iteration), None)


def _degenerate(two: ChosenRejected, rules: Pairs) -> Reason | None:
    chosen, rejected = two.chosen.sample, two.rejected.sample
    if not two.chosen.may_win:
        return "cut"
    if two.chosen.rank == two.rejected.rank:
        return "tied rewards"
    if chosen.completion_ids == rejected.completion_ids:
        return "identical ids"
    if chosen.text.strip() == rejected.text.strip():
        return "identical text"
    if two.rejected.may_win and two.chosen.value - two.rejected.value <= rules.minimum_margin:
        return "small margin"
    longest = len(chosen.prompt_ids) + max(len(chosen.completion_ids), len(rejected.completion_ids))
    return "too long" if longest > rules.max_tokens else None


def _pair(two: ChosenRejected, iteration: int) -> Pair:
    chosen, rejected = two.chosen.sample, two.rejected.sample
    return Pair(
        prompt_id=chosen.prompt_id,
        iteration=iteration,
        prompt_ids=chosen.prompt_ids,
        chosen_ids=chosen.completion_ids,
        rejected_ids=rejected.completion_ids,
        chosen_text=chosen.text,
        rejected_text=rejected.text,
        chosen_index=chosen.sample_index,
        rejected_index=rejected.sample_index,
        chosen_reward=two.chosen.reward,
        rejected_reward=two.rejected.reward,
        policy_sha256=chosen.policy_sha256,
        chosen_deviation=two.chosen.deviation,
        rejected_deviation=two.rejected.deviation,
    )


class PairParameters(Parameters):
    """Say whose pairs are chosen."""

    iteration: int


def declare_pairs(iteration: int, *, log_ratios: bool = False) -> Stage:
    """Declare the choice of one iteration's pairs, by rewards and, if wanted, log-ratios."""
    return Stage(
        name=iteration_stage(iteration, "pairs"),
        identity=IDENTITY,
        work="gshf_release.preference.pairs:select_pairs",
        kind="other",
        inputs=ranked_inputs(iteration, log_ratios=log_ratios),
        outputs=("pairs.parquet", "dropped.json"),
        keys=("seed", "pairs"),
        parameters=PairParameters(iteration=iteration).as_json(),
        numbers="gshf_release.preference.pairs:pair_cells",
    )


def select_pairs(context: StageContext) -> None:
    """Write the iteration's pairs and the count of dropped prompts by reason."""
    drops = Drops(REASONS)

    def pairs() -> Iterator[Pair]:
        for entry, choice in choices(context, context.parameters(PairParameters).iteration):
            drops.add(entry, choice.reason)
            if choice.pair is not None:
                yield choice.pair

    Pair.write(pairs(), context.output("pairs.parquet"))
    write_json(context.output("dropped.json"), drops.document())


def choices(context: StageContext, iteration: int) -> Iterator[tuple[PromptResponses, Choice]]:
    """Yield for each prompt what there is of it, and the choice, which depends on the responses to that prompt alone."""
    rules = context.recipe.pairs
    for prompt_id, entry in read_candidates(context, iteration):
        yield entry, choose_pair(entry.found, rules, iteration, _draw(context, iteration, prompt_id), entry.unread)


def _draw(context: StageContext, iteration: int, prompt_id: str) -> random.Random:
    return random.Random(seed_from(context.seed, "pair", iteration, prompt_id))


def pair_cells(context: StageContext) -> list[Cell]:
    """Return the pair counts, and how the chosen side differs from the rejected."""
    row = iteration_row(context.parameters(PairParameters).iteration)
    path = context.output("pairs.parquet")
    dropped = read_json(context.output("dropped.json"))
    place = {"table": "training", "row": row, "artefact": context.run.relative(path)}
    longer, margins = [], []
    for pair in Pair.scan(path):
        longer.append(len(pair.chosen_ids) > len(pair.rejected_ids))
        margins.append(pair.chosen_reward - pair.rejected_reward)
    cells = [Cell(metric="pairs", value=len(margins), n=dropped["prompts"], **place)]
    cells += drop_cells(dropped, **place)
    if margins:
        cells.append(cell(statistics.win_rate(longer), metric="chosen longer", unit="%", **place))
        cells.append(cell(statistics.mean(margins), metric="reward margin", **place))
    return cells
