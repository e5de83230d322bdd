"""Best against worst of n responses, and the reasons why a prompt gives no pair."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from gshf_release import statistics
from gshf_release.recipe import Pairs
from gshf_release.records import Pair, Sample, Score
from gshf_release.results import Cell, cell
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Stage

Reason = Literal[
    "too few responses",
    "non-finite reward",
    "identical text",
    "identical ids",
    "tied rewards",
    "small margin",
    "too long",
    "all cut",
]
REASONS: tuple[Reason, ...] = (
    "too few responses",
    "non-finite reward",
    "identical text",
    "identical ids",
    "tied rewards",
    "small margin",
    "too long",
    "all cut",
)


class Choice(NamedTuple):
    """A pair, or the reason why there is none."""

    pair: Pair | None
    reason: Reason | None


def choose(samples: Sequence[Sample], rewards: Mapping[int, float], rules: Pairs, iteration: int) -> Choice:
    """Return the best response against the worst, or why the prompt is dropped.

    With `cut: lose`, a response that ended beats one that was cut, whatever their rewards. Ties are broken by the lowest sample
    index on both sides.

    Args:
        samples: The responses to one prompt.
        rewards: `{sample index: reward}`; a response without one counts as missing.
        rules: The recipe's rules.
        iteration: Recorded in the pair.
    """
    usable = [entry for entry in samples if entry.sample_index in rewards and _allowed(entry, rules)]
    if any(not math.isfinite(rewards[entry.sample_index]) for entry in usable):
        return Choice(None, "non-finite reward")
    if len(usable) < 2:
        return Choice(None, "too few responses")
    rank = {entry.sample_index: (_may_win(entry, rules), rewards[entry.sample_index]) for entry in usable}
    best = max(usable, key=lambda entry: (rank[entry.sample_index], -entry.sample_index))
    worst = min(usable, key=lambda entry: (rank[entry.sample_index], entry.sample_index))
    if not _may_win(best, rules):
        return Choice(None, "all cut")
    if rank[best.sample_index] == rank[worst.sample_index]:
        return Choice(None, "tied rewards")
    by_reward = _may_win(worst, rules)
    margin = rewards[best.sample_index] - rewards[worst.sample_index] if by_reward else math.inf
    reason = _degenerate(best, worst, margin, rules)
    if reason is not None:
        return Choice(None, reason)
    return Choice(_pair(best, worst, rewards, iteration), None)


def _may_win(sample: Sample, rules: Pairs) -> bool:
    return rules.cut != "lose" or sample.finish_reason == "stop"


def _allowed(sample: Sample, rules: Pairs) -> bool:
    return rules.cut != "drop" or sample.finish_reason == "stop"


def _degenerate(best: Sample, worst: Sample, margin: float, rules: Pairs) -> Reason | None:
    if best.completion_ids == worst.completion_ids:
        return "identical ids"
    if best.text.strip() == worst.text.strip():
        return "identical text"
    if margin <= rules.minimum_margin:
        return "small margin"
    longest = len(best.prompt_ids) + max(len(best.completion_ids), len(worst.completion_ids))
    return "too long" if longest > rules.max_tokens else None


def _pair(best: Sample, worst: Sample, rewards: Mapping[int, float], iteration: int) -> Pair:
    return Pair(
        prompt_id=best.prompt_id,
        iteration=iteration,
        prompt_ids=best.prompt_ids,
        chosen_ids=best.completion_ids,
        rejected_ids=worst.completion_ids,
        chosen_text=best.text,
        rejected_text=worst.text,
        chosen_index=best.sample_index,
        rejected_index=worst.sample_index,
        chosen_reward=rewards[best.sample_index],
        rejected_reward=rewards[worst.sample_index],
        policy_sha256=best.policy_sha256,
    )


def declare(iteration: int) -> Stage:
    """Declare the choice of one iteration's pairs."""
    samples, rewards = f"iteration-{iteration}/samples", f"iteration-{iteration}/rewards"
    return Stage(
        name=f"iteration-{iteration}/pairs",
        work="gshf_release.preference.pairs:select",
        inputs=(Input(samples, "samples.parquet"), Input(rewards, "scores.parquet")),
        outputs=("pairs.parquet", "dropped.json"),
        keys=("pairs",),
        parameters={"iteration": iteration},
        numbers="gshf_release.preference.pairs:numbers",
    )


def select(context: StageContext) -> None:
    """Write the iteration's pairs and the count of dropped prompts by reason."""
    iteration = context.parameter("iteration")
    samples: dict[str, list[Sample]] = {}
    for entry in Sample.read(*context.inputs(f"iteration-{iteration}/samples", "samples.parquet")):
        samples.setdefault(entry.prompt_id, []).append(entry)
    rewards: dict[str, dict[int, float]] = {}
    for score in Score.read(*context.inputs(f"iteration-{iteration}/rewards", "scores.parquet")):
        rewards.setdefault(score.prompt_id, {})[score.sample_index] = score.reward
    choices = [
        choose(responses, rewards.get(prompt_id, {}), context.recipe.pairs, iteration)
        for prompt_id, responses in samples.items()
    ]
    Pair.write([choice.pair for choice in choices if choice.pair is not None], context.output("pairs.parquet"))
    counts = Counter(choice.reason for choice in choices if choice.reason is not None)
    document = {"prompts": len(samples), "dropped": {reason: counts[reason] for reason in REASONS}}
    context.output("dropped.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def numbers(context: StageContext) -> list[Cell]:
    """Return the pair counts, and how the chosen side differs from the rejected."""
    row = f"iteration-{context.parameter('iteration')}"
    path = context.output("pairs.parquet")
    pairs = Pair.read(path)
    dropped = json.loads(context.output("dropped.json").read_text(encoding="utf-8"))
    place = {"table": "training", "row": row, "artefact": context.run.relative(path)}
    cells = [Cell(metric="pairs", value=len(pairs), n=dropped["prompts"], **place)]
    cells += [
        Cell(metric=f"dropped: {reason}", value=count, n=dropped["prompts"], **place)
        for reason, count in dropped["dropped"].items()
        if count
    ]
    if pairs:
        longer = statistics.win_rate([len(pair.chosen_ids) > len(pair.rejected_ids) for pair in pairs])
        margin = statistics.mean([pair.chosen_reward - pair.rejected_reward for pair in pairs])
        cells.append(cell(longer, metric="chosen longer", unit="%", **place))
        cells.append(cell(margin, metric="reward margin", **place))
    return cells
