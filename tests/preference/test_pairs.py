"""Best against worst: what a pair always satisfies, and every reason for having none."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.data.records import FinishReason, Pair, Sample, Score
from gshf_release.data.results import find, read_cells
from gshf_release.preference import pairs
from gshf_release.preference.pairs import REASONS, Choice, declare_pairs
from gshf_release.preference.ranking import candidates
from gshf_release.recipe import Pairs
from gshf_release.run.context import StageContext
from gshf_release.run.execution import execute
from gshf_release.run.stage import Stage
from tests.run.plans import PROFILES, begin, recipe

RULES = Pairs()


def response(
    index: int, text: str = "", ids: list[int] | None = None, reason: FinishReason = "stop", of: str = "p"
) -> Sample:
    """Return a response; its ids and text follow from the index unless given."""
    ids = ids if ids is not None else [10 + index, 2]
    return Sample(of, index, "T=1", 1.0, [1, 5, 6], ids, text or f"answer {index}", reason, "f" * 64)


def choose(samples: list[Sample], rewards: dict[int, float], rules: Pairs, iteration: int) -> Choice:
    """Return the choice among the responses, with the same random numbers each time."""
    return pairs.choose_pair(candidates(samples, rewards, rules), rules, iteration, random.Random(0))


TEXTS = st.sampled_from(["one", "two", "three", " one "])
IDS = st.sampled_from([[3, 2], [4, 2], [5, 6, 2], [7]])
REWARDS = st.one_of(st.sampled_from([0.0, 0.5, 1.0, math.nan, math.inf, -math.inf]), st.floats(-5, 5))


@st.composite
def cases(draw: Any) -> tuple[list[Sample], dict[int, float], Pairs]:
    """Return responses with rewards, some missing, and rules."""
    size = draw(st.integers(0, 6))
    samples = [
        response(index, draw(TEXTS), draw(IDS), draw(st.sampled_from(["stop", "length"]))) for index in range(size)
    ]
    rewards = {index: draw(REWARDS) for index in range(size) if draw(st.booleans()) or draw(st.booleans())}
    rules = Pairs(
        minimum_margin=draw(st.sampled_from([0.0, 0.5, 2.0])),
        cut=draw(st.sampled_from(["keep", "drop"])),
        max_tokens=draw(st.sampled_from([5, 4096])),
    )
    return samples, rewards, rules


@given(cases())
@settings(max_examples=400, deadline=None)
def test_a_prompt_gives_a_pair_or_one_reason(case: tuple[list[Sample], dict[int, float], Pairs]) -> None:
    choice = choose(*case, iteration=1)
    assert (choice.pair is None) == (choice.reason in REASONS)
    assert (choice.pair is not None) == (choice.reason is None)


@given(cases())
@settings(max_examples=400, deadline=None)
def test_what_every_pair_satisfies(case: tuple[list[Sample], dict[int, float], Pairs]) -> None:
    samples, rewards, rules = case
    pair = choose(samples, rewards, rules, 1).pair
    if pair is None:
        return
    assert pair.chosen_index != pair.rejected_index
    assert pair.chosen_ids != pair.rejected_ids
    assert pair.chosen_text.strip() != pair.rejected_text.strip()
    assert math.isfinite(pair.chosen_reward)
    assert math.isfinite(pair.rejected_reward)
    assert pair.chosen_reward - pair.rejected_reward > rules.minimum_margin
    usable = [s for s in samples if s.sample_index in rewards and (rules.cut == "keep" or s.finish_reason == "stop")]
    assert pair.chosen_reward == max(rewards[s.sample_index] for s in usable)
    assert pair.rejected_reward == min(rewards[s.sample_index] for s in usable)
    assert len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids)) <= rules.max_tokens


@given(cases(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_responses_does_not_matter(
    case: tuple[list[Sample], dict[int, float], Pairs], shuffle: Any
) -> None:
    samples, rewards, rules = case
    shuffled = list(samples)
    shuffle.shuffle(shuffled)
    assert choose(shuffled, rewards, rules, 1) == choose(samples, rewards, rules, 1)


def test_a_hand_made_selection() -> None:
    samples = [response(index) for index in range(4)]
    pair = choose(samples, {0: 0.25, 1: -1.0, 2: 2.0, 3: 2.0}, RULES, iteration=3).pair
    assert pair == Pair("p", 3, [1, 5, 6], [12, 2], [11, 2], "answer 2", "answer 1", 2, 1, 2.0, -1.0, "f" * 64)


def test_each_side_keeps_the_deviation_of_its_own_reward() -> None:
    found = candidates([response(0), response(1)], {0: 0.0, 1: 1.0}, RULES, deviations={0: 0.25, 1: 0.5})
    pair = pairs.choose_pair(found, RULES, 1, random.Random(0)).pair
    assert pair is not None
    assert (pair.chosen_deviation, pair.rejected_deviation) == (0.5, 0.25)


def reason(samples: list[Sample], rewards: list[float], **rules: Any) -> str | None:
    return choose(samples, dict(enumerate(rewards)), Pairs(**rules), 1).reason


def test_ties_are_dropped() -> None:
    assert reason([response(0), response(1)], [0.5, 0.5]) == "tied rewards"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_drops_the_prompt(bad: float) -> None:
    assert reason([response(0), response(1), response(2)], [0.0, bad, 1.0]) == "non-finite reward"


def test_identical_ids_are_dropped() -> None:
    assert reason([response(0, ids=[3, 2]), response(1, ids=[3, 2])], [0.0, 1.0]) == "identical ids"


def test_identical_text_from_other_ids_is_dropped() -> None:
    assert reason([response(0, "same", [3, 4]), response(1, " same ", [5])], [0.0, 1.0]) == "identical text"


def test_a_margin_must_exceed_the_minimum() -> None:
    samples = [response(0), response(1)]
    assert reason(samples, [0.0, 0.5], minimum_margin=0.5) == "small margin"
    assert reason(samples, [0.0, 0.5], minimum_margin=0.4) is None


def test_a_pair_that_is_too_long_is_dropped_whole() -> None:
    samples = [response(0), response(1, ids=[3] * 7)]
    assert reason(samples, [1.0, 0.0], max_tokens=9) == "too long"
    assert reason(samples, [1.0, 0.0], max_tokens=10) is None


def test_a_cut_response_is_kept_or_left_out_as_the_recipe_says() -> None:
    samples = [response(0), response(1, reason="length"), response(2)]
    kept = choose(samples, {0: 0.0, 1: 2.0, 2: 1.0}, Pairs(cut="keep"), 1).pair
    left = choose(samples, {0: 0.0, 1: 2.0, 2: 1.0}, Pairs(cut="drop"), 1).pair
    assert kept is not None
    assert left is not None
    assert (kept.chosen_index, left.chosen_index) == (1, 2)


def test_a_cut_response_loses_against_any_that_ended() -> None:
    samples = [response(0), response(1, reason="length"), response(2), response(3, reason="length")]
    pair = choose(samples, {0: 1.0, 1: 5.0, 2: 0.0, 3: 4.0}, Pairs(cut="lose"), 1).pair
    assert pair is not None
    assert (pair.chosen_index, pair.rejected_index) == (0, 3), "the best that ended, over the worst that was cut"


def test_where_none_ended_there_is_no_pair() -> None:
    samples = [response(0, reason="length"), response(1, reason="length")]
    assert choose(samples, {0: 1.0, 1: 0.0}, Pairs(cut="lose"), 1).reason == "cut"


@pytest.mark.parametrize("count", [0, 1])
def test_one_response_makes_no_pair(count: int) -> None:
    assert reason([response(index) for index in range(count)], [1.0] * count) == "too few responses"


def test_a_response_without_a_reward_is_missing() -> None:
    assert choose([response(0), response(1)], {1: 1.0}, RULES, 1).reason == "too few responses"


def write_samples(context: StageContext) -> None:
    """Write responses to five prompts: a pair, one whose chosen side is longer, a tie, a NaN, identical ids."""
    ids = {"same": ([3, 2], [3, 2]), "longer": ([3, 2], [3, 4, 2])}
    rows = [response(index, ids=ids[of][index] if of in ids else None, of=of) for of in ORDER for index in (0, 1)]
    Sample.write(rows, context.output("samples.parquet"))


def write_scores(context: StageContext) -> None:
    """Write their rewards."""
    Score.write(
        [Score(of, index, reward, "s") for of, rewards in ORDER.items() for index, reward in enumerate(rewards)],
        context.output("scores.parquet"),
    )


ORDER = {"good": (0.5, 2.0), "longer": (0.5, 1.0), "tie": (1.0, 1.0), "nan": (math.nan, 1.0), "same": (0.0, 1.0)}


def test_every_dropped_prompt_is_counted_by_its_reason(tmp_path: Path) -> None:
    here = "tests.preference.test_pairs"
    stages = [
        Stage("iteration-1/samples", f"{here}:write_samples", outputs=("samples.parquet",)),
        Stage("iteration-1/rewards", f"{here}:write_scores", outputs=("scores.parquet",)),
        declare_pairs(1),
    ]
    run = begin(tmp_path / "run")
    execute(stages, run, recipe(), PROFILES["here"])
    folder = run.path / "iteration-1" / "pairs"
    pairs = Pair.read(folder / "pairs.parquet")
    dropped = json.loads((folder / "dropped.json").read_text(encoding="utf-8"))
    assert [pair.prompt_id for pair in pairs] == ["good", "longer"]
    assert {key: count for key, count in dropped["dropped"].items() if count} == {
        "tied rewards": 1,
        "non-finite reward": 1,
        "identical ids": 1,
    }
    assert len(pairs) + sum(dropped["dropped"].values()) == dropped["prompts"] == 5
    cells = read_cells(run.path / "results.json")
    assert find(cells, metric="pairs").value == 2  # type: ignore[union-attr]
    assert find(cells, metric="reward margin").value == 1.0  # type: ignore[union-attr]
    assert find(cells, metric="chosen longer").value == 50  # type: ignore[union-attr]


def test_responses_left_out_because_they_were_cut_are_counted_as_cut() -> None:
    samples = [response(0, reason="length"), response(1)]
    assert choose(samples, {0: 1.0, 1: 0.0}, Pairs(cut="drop"), 1).reason == "cut"
    assert choose(samples[:1], {0: 1.0}, Pairs(cut="drop"), 1).reason == "too few responses"
