"""What becomes of written prompts: each drop has a reason, and the decisions depend on their order alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from gshf_release.data.records import Message, Prompt
from gshf_release.prompts.benchmark_files import BenchmarkPrompt
from gshf_release.prompts.decontamination import Decontaminator
from gshf_release.prompts.pool import Candidate, Pool, prompt_id
from gshf_release.prompts.rouge import SimilarityIndex
from gshf_release.prompts.split import read_prompts, source_path
from gshf_release.recipe import Augmentation, Filters

SEEDS = ["Why is the sky blue at noon?", "Name three long rivers in Asia."]
BENCHMARK = Decontaminator([BenchmarkPrompt("mt-bench/81/1", "Draft a cheerful letter about a long night train ride.")])
SCORER = RougeScorer(["rougeL"], use_stemmer=False)


def candidates(texts: Sequence[str]) -> list[Candidate]:
    return [Candidate(text, 0, number) for number, text in enumerate(texts)]


def pool(decontaminator: Decontaminator | None = None, **changes: Any) -> Pool:
    return Pool(Augmentation(**changes), 0, SEEDS, decontaminator)


def test_each_drop_has_its_reason_and_what_it_is_too_close_to() -> None:
    made = pool(BENCHMARK)
    made.consider(
        candidates(
            [
                "How do tides work near the equator?",
                "Hm?",
                "why is the sky blue, at noon",
                "How do tides work, near the equator?",
                "draft a cheerful letter about a long night train ride",
                "How do tides work near the poles?",
                "Invent a riddle about a lighthouse keeper.",
            ]
        )
    )
    assert [(row.prompt[:12], row.reason, row.of) for row in made.dropped] == [
        ("Hm?", "too short", ""),
        ("why is the s", "same words", prompt_id(SEEDS[0])),
        ("How do tides", "same words", prompt_id("How do tides work near the equator?")),
        ("draft a chee", "benchmark: same words", "mt-bench/81/1"),
        ("How do tides", "near copy", prompt_id("How do tides work near the equator?")),
    ]
    assert [row.prompt[:12] for row in made.accepted] == ["How do tides", "Invent a rid"]


def test_text_is_kept_as_it_was_written() -> None:
    made = pool()
    made.consider(candidates(["how do HTML and iOS differ on an iPad?"]))
    assert made.accepted[0].prompt == "how do HTML and iOS differ on an iPad?"


def test_an_id_is_the_one_the_prompt_has_in_a_run() -> None:
    text = "How do tides work near the equator?"
    assert prompt_id(text) == Prompt.of([Message(role="user", content=text)]).prompt_id


def test_texts_without_words_are_compared_as_they_are() -> None:
    made = pool(filters=Filters(minimum_words=0, leading_punctuation=False))
    made.consider(candidates(["😀", "🎉", "😀"]))
    assert [row.prompt for row in made.accepted] == ["😀", "🎉"]


def test_about_one_in_sixteen_is_an_example_and_no_part_of_the_set() -> None:
    made = pool(similarity=0.99, filters=Filters(minimum_words=0))
    made.consider(candidates([f"word{number} other{number * 7}" for number in range(3200)]))
    assert 140 < len(made.examples) < 260
    assert made.count == 3200 - len(made.examples)


@given(
    st.lists(st.lists(st.sampled_from(["tea", "cools", "why", "rain", "gold"]), min_size=3, max_size=8), max_size=40),
    st.integers(0, 40),
)
@settings(max_examples=40, deadline=None)
def test_the_accepted_are_pairwise_distinct_and_pieces_do_not_matter(drawn: list[list[str]], cut: int) -> None:
    texts = [" ".join(words) for words in drawn]
    at_once, in_pieces = pool(), pool()
    at_once.consider(candidates(texts))
    in_pieces.consider(candidates(texts)[:cut])
    in_pieces.consider(candidates(texts)[cut:])
    assert at_once.accepted == in_pieces.accepted
    known = [*SEEDS, *(row.prompt for row in at_once.accepted)]
    for number, one in enumerate(known):
        assert all(SCORER.score(one, other)["rougeL"].fmeasure <= 0.7 for other in known[:number])
    assert len(at_once.accepted) + len(at_once.dropped) == len(texts)


def test_the_shipped_seeds_are_many_and_no_near_copies_of_each_other() -> None:
    seeds = [prompt.messages[-1]["content"] for prompt in read_prompts(source_path("seed", "training/prompts"))]
    assert len(seeds) >= 175  # as many as self-instruct had
    assert SimilarityIndex().add_distinct(seeds) == [None] * len(seeds)
