"""The gain that is left at equal length and at equal use of a pattern."""

from __future__ import annotations

import math

import pytest

from gshf_release.data.records import Sample
from gshf_release.data.results import Cell, select
from gshf_release.diagnostics.explanations import RISE, TRACKED, WHERE_ENDED, explanation_cells, strongest
from gshf_release.diagnostics.row_metrics import REPETITION_RISE, text_cells
from tests.diagnostics.rows import answer

PLACE = {"table": "test", "row": "iteration-1", "artefact": "a"}
PROMPTS = ("p", "q", "r", "s", *"tuvwxy")


def cells_of(own: list[Sample], base: list[Sample], gains: list[float]) -> list[Cell]:
    before = {(answer.prompt_id, 0): 1.0 for answer in base}
    after = {(answer.prompt_id, 0): 1.0 + gain for answer, gain in zip(own, gains, strict=True)}
    return explanation_cells(own, base, {"reward": (after, before)}, **PLACE)


def left(cells: list[Cell], metric: str) -> Cell:
    (found,) = select(cells, metric=metric, judge="reward")
    return found


def of_length(lengths: list[int], text: str = "word") -> list[Sample]:
    return [answer(prompt, text, tokens=tokens) for prompt, tokens in zip(PROMPTS, lengths, strict=False)]


def test_a_gain_that_came_with_the_length_leaves_nothing() -> None:
    own, base = of_length([5, 7, 9, 4]), of_length([4, 5, 6, 4])
    found = left(cells_of(own, base, [0.5, 1.0, 1.5, 0.0]), "gain at equal length")
    assert found.value == pytest.approx(0, abs=1e-12)
    assert found.n == 4


def test_a_gain_beside_the_length_is_left() -> None:
    own, base = of_length([5, 7, 9, 4]), of_length([4, 5, 6, 4])
    assert left(cells_of(own, base, [2.5, 3.0, 3.5, 2.0]), "gain at equal length").value == pytest.approx(2)


def test_equal_lengths_leave_the_gain_itself() -> None:
    own = of_length([4, 5, 6, 4])
    found = left(cells_of(own, own, [1.0, 2.0, 3.0, 2.0]), "gain at equal length")
    assert (found.value, found.standard_error) == pytest.approx((2, (2 / 3 / 4) ** 0.5))


def test_lengths_that_all_grew_alike_cannot_be_told_from_the_gain() -> None:
    found = left(cells_of(of_length([5] * 4), of_length([4] * 4), [1.0, 2.0, 1.0, 2.0]), "gain at equal length")
    assert found.value is None
    assert "not to be told" in found.note


def texts(*found: str) -> list[Sample]:
    return [answer(prompt, text) for prompt, text in zip(PROMPTS, found, strict=False)]


def test_a_reward_for_list_lines_is_explained_by_them() -> None:
    own = texts("one\n- two\n- three", "- four", "five\n- six\n- seven\n- eight", "nine ten")
    base = texts("a cat", "- b", "c dog", "d sun")
    cells = cells_of(own, base, [math.log1p(2), 0.0, math.log1p(3), 0.0])
    (use,) = select(cells, metric="use of line start")
    (rise,) = select(cells, metric="rise of line start")
    assert (use.value, rise.value, use.note) == (75, 50, 'line start "list"')
    assert left(cells, "gain at equal pattern").value == pytest.approx(0, abs=1e-12)


def test_one_very_long_list_does_not_hide_that_lists_explain_the_gain() -> None:
    """As under a reward that pays for four lines at most, and a policy that now and then does not end its list."""
    lists = [2, 3, 4, 5, 24]
    own = texts(*("\n".join(f"{n}. item" for n in range(1, lines + 1)) for lines in lists), *(["no list"] * 5))
    base = texts(*(["a sentence"] * 10))
    found = left(cells_of(own, base, [float(min(lines, 4)) for lines in lists] + [0.0] * 5), "gain at equal pattern")
    assert found.value == pytest.approx(0, abs=0.2 * 1.7), (
        "a fifth of the gain; by numbers of lines 63 % of it are left"
    )


def test_of_patterns_that_count_the_one_that_explains_most_is_taken() -> None:
    own = [
        "sure thing friend the end",
        "sure thing friend the the the",
        "sure thing friend no",
        "sure thing friend the the",
    ]
    base = ["cat sat on", "dog ran by", "sun is hot", "sure thing friend it is"]
    gains = [20.0, 50.0, 0.0, 40.0]  # the share of `the`
    found = strongest(own, base, gains)
    assert found is not None
    assert (found.kind, found.key) == ("word", "the")
    by_opening = strongest(own, base, [1.0, 1.0, 1.0, 0.0])
    assert by_opening is not None
    assert (by_opening.kind, by_opening.key) == ("opening", "sure thing friend")


def test_a_word_that_rose_little_is_taken_if_the_gains_go_with_it() -> None:
    rest = "a b c d e f g h i " * 4
    own, base = [f"the {rest}", rest, f"a the b the {rest}", f"{rest} the"], [rest] * 4
    gains = [1 / 37, 0.0, 2 / 40, 1 / 37]
    found = strongest(own, base, gains)
    assert found is not None
    assert (found.kind, found.key) == ("word", "the")
    assert found.rise < RISE["word"]
    assert tracked(own, base, gains) == pytest.approx(1)


def tracked(own: list[str], base: list[str], gains: list[float]) -> float | None:
    (found,) = select(cells_of(texts(*own), texts(*base), gains), metric=TRACKED)
    return found.value


def test_texts_without_words_have_no_pattern() -> None:
    assert strongest(["", " "], ["", ""], [1.0, 1.0]) is None


def test_text_cells_per_decoding() -> None:
    answers = [*texts("a b", "a b", "c d", "e f"), answer("p", "x y", index=1, decoding="T=0.7")]
    cells = text_cells(answers, **PLACE)
    assert [cell.value for cell in select(cells, decoding="greedy")] == [0.75, 0.75, None, 50, 0]
    assert [cell.value for cell in select(cells, decoding="T=0.7")] == [1, 1, None, 0, 0]


def test_the_gain_where_the_base_ended_leaves_out_what_was_cut() -> None:
    base = [answer(f"p{i}", "word", reason="stop" if i < 2 else "length") for i in range(5)]
    own = [answer(f"p{i}", "word") for i in range(5)]
    found = left(cells_of(own, base, [1.0, 3.0, 9.0, 9.0, 9.0]), WHERE_ENDED)
    assert (found.value, found.n) == (2.0, 2)


def test_the_rise_of_repetition_is_paired() -> None:
    """Answers of five tokens: 1 1 1 1 1 has two 4-grams, one of which stands again (50 %); 0 1 2 3 4 repeats none."""
    loops = Sample("p0", 0, "greedy", 0.0, [1], [1] * 5, "word", "stop", "f" * 64)
    own, base = [loops, answer("p1", "word", tokens=5)], [answer(f"p{i}", "word", tokens=5) for i in range(2)]
    (found,) = select(cells_of(own, base, [1.0, 1.0]), metric=REPETITION_RISE)
    assert (found.value, found.standard_error, found.n) == (25.0, 25.0, 2)
