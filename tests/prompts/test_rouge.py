"""The similarity index decides as rouge_score does, on random and on adversarial sets."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import scoring
from rouge_score.rouge_scorer import RougeScorer

from gshf_release.errors import DataError
from gshf_release.prompts import rouge
from gshf_release.prompts.rouge import SimilarityIndex, needed, rouge_l

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
VOCABULARY = ["a", "b", "c", "d", "Write,", "a!", "the", "story"]
FEW_WORDS = st.lists(st.sampled_from(VOCABULARY), max_size=14).map(" ".join)
LONG = st.lists(st.integers(0, 40).map(lambda number: f"w{number}"), min_size=25, max_size=45).map(" ".join)


def reference(first: str, second: str) -> float:
    return float(SCORER.score(first, second)["rougeL"].fmeasure)


def greedy(texts: Sequence[str], threshold: float = 0.7) -> list[int | None]:
    """Return for each text the place of the first kept one it is too similar to, by rouge_score alone."""
    kept: list[str] = []
    found: list[int | None] = []
    for text in texts:
        first = next((place for place, other in enumerate(kept) if reference(other, text) > threshold), None)
        if first is None:
            kept.append(text)
        found.append(first)
    return found


def decisions(texts: Sequence[str], threshold: float = 0.7) -> list[int | None]:
    return [None if hit is None else hit.position for hit in SimilarityIndex(threshold).add_distinct(texts)]


def edited(text: str, draw: random.Random) -> str:
    """Return a text with a few words taken out, doubled, swapped or replaced."""
    words = text.split()
    for _ in range(draw.randrange(1, 6)):
        place = draw.randrange(len(words))
        change = draw.choice(("cut", "double", "swap", "replace"))
        if change == "cut" and len(words) > 1:
            del words[place]
        elif change == "double":
            words.insert(place, words[place])
        elif change == "swap":
            other = draw.randrange(len(words))
            words[place], words[other] = words[other], words[place]
        else:
            words[place] = f"new{draw.randrange(5)}"
    return " ".join(words)


def test_f_is_rouge_scores_to_the_last_bit() -> None:
    for m in range(1, 30):
        for n in range(1, 30):
            for lcs in range(min(m, n) + 1):
                assert rouge_l(lcs, m, n) == scoring.fmeasure(lcs / n, lcs / m) == scoring.fmeasure(lcs / m, lcs / n)


def test_the_least_lcs_is_the_first_above_the_threshold() -> None:
    for m in range(1, 60):
        for n in range(1, 60):
            above = [lcs for lcs in range(1, min(m, n) + 1) if rouge_l(lcs, m, n) > 0.7]
            least = needed(m, n, 0.7)
            assert least == above[0] if above else least > min(m, n)


@pytest.mark.parametrize(("shared", "dropped"), [(7, False), (8, True)])
def test_the_threshold_itself_is_kept(shared: int, dropped: bool) -> None:
    one = " ".join(f"w{number}" for number in range(10))
    other = " ".join(f"w{number}" if number < shared else f"x{number}" for number in range(10))
    assert (decisions([one, other])[1] is not None) is dropped is (reference(one, other) > 0.7)


def test_order_of_words_counts_not_only_their_presence() -> None:
    words = [f"w{number}" for number in range(12)]
    assert decisions([" ".join(words), " ".join(reversed(words))]) == [None, None]


@given(st.lists(FEW_WORDS, max_size=25), st.sampled_from([0.5, 0.7, 0.9]))
@settings(max_examples=80, deadline=None)
def test_decisions_on_texts_of_few_words(texts: list[str], threshold: float) -> None:
    assert decisions(texts, threshold) == greedy(texts, threshold)


@given(st.lists(LONG, min_size=1, max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_decisions_on_chains_of_edited_copies(texts: list[str], draw: random.Random) -> None:
    for _ in range(14):
        texts.append(edited(draw.choice(texts), draw))
    assert decisions(texts) == greedy(texts)


def test_decisions_across_all_lengths() -> None:
    draw = random.Random(7)
    texts = [" ".join(draw.choice("abcdefgh") for _ in range(length)) for length in (*range(1, 40), 90, 120, 150, 200)]
    texts += [edited(text, draw) for text in texts]
    assert decisions(texts) == greedy(texts)


def test_decisions_on_permutations_of_the_same_words() -> None:
    draw = random.Random(1)
    texts = [" ".join(draw.sample([f"w{number}" for number in range(14)], 14)) for _ in range(80)]
    texts += [edited(text, draw) for text in texts[:20]]
    assert decisions(texts) == greedy(texts)


def test_words_that_share_a_bit_of_the_signature_are_told_apart() -> None:
    # The numbers 0 and 128 flip the same bit; a signature of them alone would take the two texts for copies.
    index = SimilarityIndex()
    index.add([" ".join(f"w{number}" for number in range(300))])
    ours = " ".join(f"w{number}" for number in range(12))
    other = " ".join(f"w{number + 128}" for number in range(12))
    assert index.add_distinct([ours, other, ours]) == [None, None, rouge.Similar(1, 1.0)]


@given(st.lists(FEW_WORDS, max_size=30), st.integers(1, 29))
@settings(max_examples=40, deadline=None)
def test_adding_in_pieces_decides_as_adding_at_once(texts: list[str], cut: int) -> None:
    index = SimilarityIndex()
    assert index.add_distinct(texts[:cut]) + index.add_distinct(texts[cut:]) == SimilarityIndex().add_distinct(texts)


def test_small_blocks_decide_as_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    texts = [" ".join(draw.choice("abcde") for _ in range(draw.randrange(12))) for _ in range(200)]
    expected = SimilarityIndex().add_distinct(texts)
    monkeypatch.setattr(rouge, "BLOCK", 7)
    monkeypatch.setattr(rouge, "PAIRS", 16)
    assert SimilarityIndex().add_distinct(texts) == expected


def test_asking_adds_nothing() -> None:
    index = SimilarityIndex()
    index.add(["why is the sky blue", "name three rivers"])
    (hit, none) = index.similar(["Why is the SKY so blue?", "what is a river"])
    assert hit is not None
    assert (hit.position, hit.f) == (0, reference("why is the sky blue", "Why is the SKY so blue?"))
    assert none is None
    assert len(index) == 2


def test_texts_without_words_are_similar_to_nothing() -> None:
    assert decisions(["!!!", "!!!", "", "a", "?"]) == greedy(["!!!", "!!!", "", "a", "?"]) == [None] * 5


def test_near_copies_in_other_scripts_are_found() -> None:
    texts = [
        "Почему небо голубое днём?",
        "почему НЕБО голубое днем",
        "日本の首都はどこですか",
        "日本の首都はどこ?",
        "韓国の料理",
    ]
    assert decisions(texts) == [None, 0, None, 1, None]  # places among those that were added
    assert greedy(texts) == [None] * 5  # rouge_score sees no word in them


def test_too_many_different_words_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.maxunicode", 3)
    with pytest.raises(DataError, match="more than 3 different words"):
        SimilarityIndex().add(["a b c d"])
