"""AlpacaEval 2's numbers: difficulties by instruction, and every way in which a file may differ from the evaluation set."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gshf_release.errors import DataError
from gshf_release.evaluation.alpaca_eval import scoring
from gshf_release.evaluation.alpaca_eval.annotations import BASELINE, Annotation
from gshf_release.evaluation.alpaca_eval.data import AlpacaEvalData
from gshf_release.evaluation.alpaca_eval.scoring import AlpacaEvalScore, score
from tests.evaluation.alpaca_eval.rows import COUNT, INSTRUCTIONS, annotation, borrowed, judged

DATA = borrowed()


@pytest.fixture(scope="module")
def complete() -> AlpacaEvalScore:
    return score(judged(), DATA)


def numbers(found: AlpacaEvalScore) -> tuple[float | None, ...]:
    return (found.length_controlled_winrate, found.lc_standard_error, found.lc_low, found.lc_high)


def test_a_complete_file_is_scored_as_published(complete: AlpacaEvalScore) -> None:
    assert complete.lc_label == "length_controlled_v1"
    assert complete.lc_rule == "instruction"
    assert complete.lc_difference == 0
    assert complete.lc_low <= complete.length_controlled_winrate <= complete.lc_high
    assert complete.warnings == ()
    assert complete.data == "verified"
    assert complete.avg_length == sum(len(row.output_2) for row in judged()) // COUNT


def test_the_order_of_rows_changes_nothing(complete: AlpacaEvalScore) -> None:
    rows = judged()
    random.Random(3).shuffle(rows)
    found = score(rows, DATA)
    assert numbers(found) == numbers(complete)
    assert found.win_rate == pytest.approx(complete.win_rate, abs=1e-12)


def test_the_position_rule_is_reproduced_and_its_difference_shown(complete: AlpacaEvalScore) -> None:
    rows = judged()[::-1]
    by_position = score(rows, DATA, as_published=True)
    position_only = score(rows, replace(DATA, instructions=tuple(row.instruction for row in rows)))
    assert by_position.lc_rule == "position"
    assert by_position.length_controlled_winrate == position_only.length_controlled_winrate
    assert by_position.lc_by_instruction == complete.length_controlled_winrate
    assert by_position.lc_difference == pytest.approx(
        position_only.length_controlled_winrate - complete.length_controlled_winrate
    )
    assert abs(by_position.lc_difference) > 1e-3
    assert "difficulties by row position, as published, give" in by_position.warnings[0]


def test_missing_rows_keep_their_difficulties() -> None:
    rows = judged()[10:]
    found = score(rows, DATA)
    assert found.n_total == COUNT - 10
    shifted = replace(DATA, difficulty=DATA.difficulty[10:], instructions=INSTRUCTIONS[10:])
    assert found.length_controlled_winrate == score(rows, shifted).length_controlled_winrate


def test_exact_copies_count_once(complete: AlpacaEvalScore) -> None:
    rows = judged()
    found = score([*rows, rows[4]], DATA)
    assert numbers(found) == numbers(complete)
    assert found.n_total == COUNT
    assert "1 of 61 rows repeat an earlier one exactly" in found.warnings[0]


def test_of_contradicting_judgments_the_last_counts(complete: AlpacaEvalScore) -> None:
    rows = judged()
    earlier = [replace(row, preference=1.0) for row in rows[:20]]
    found = score([*earlier, *rows], DATA)
    assert (found.n_total, found.n_duplicates, found.n_missing) == (COUNT, 20, 0)
    assert numbers(found) == numbers(complete)
    assert found.win_rate == pytest.approx(complete.win_rate, abs=1e-12)
    assert "20 of 80 rows have another judgment or answer further down" in found.warnings[0]
    assert score([*rows, *earlier], DATA).win_rate < complete.win_rate


def test_a_last_row_without_a_judgment_counts_as_none() -> None:
    rows = judged()
    found = score([*rows, replace(rows[4], preference=None)], DATA)
    assert (found.n_total, found.n_null, found.n_duplicates) == (COUNT - 1, 1, 1)


def test_the_position_rule_has_no_difficulty_for_more_rows_than_the_set() -> None:
    rows = judged()
    more = [*rows, replace(rows[4], instruction="One more.")]
    found = score(more, replace(DATA, instructions=()), as_published=True)
    assert found.length_controlled_winrate is None
    assert found.lc_reason == "the position rule has difficulties for 60 rows, there are 61"
    assert found.win_rate > 0


def test_a_part_of_the_set_has_no_published_label() -> None:
    found = score(judged()[:40], DATA)
    assert (found.n_total, found.n_missing) == (40, 20)
    assert found.lc_label == "length_controlled_v1, incomplete"
    assert found.lc_reason == "40 of 60 instructions are judged"
    assert found.length_controlled_winrate is not None
    assert "20 of 60 instructions are missing." in found.warnings


@pytest.mark.parametrize("count", [1, 29])
@pytest.mark.parametrize("as_published", [False, True])
def test_less_than_half_of_the_set_has_no_length_controlled_win_rate(count: int, as_published: bool) -> None:
    found = score(judged()[:count], DATA, as_published)
    assert numbers(found) == (None, None, None, None)
    assert (found.lc_label, found.n_missing) == ("none", COUNT - count)
    assert f"{count} of 60 instructions are judged, a length-controlled win rate needs 30" == found.lc_reason


def test_rows_without_a_judgment_do_not_make_a_file_complete() -> None:
    rows = [replace(row, preference=None) if number < 25 else row for number, row in enumerate(judged())]
    found = score(rows, DATA)
    assert (found.lc_label, found.n_missing) == ("length_controlled_v1, incomplete", 0)


def test_a_part_of_the_set_by_another_judge_is_warned_about() -> None:
    rows = [replace(row, annotator="llama") for row in judged()]
    found = score(rows, AlpacaEvalData())
    assert found.n_missing is None
    assert "There are 60 rows, AlpacaEval has 805 instructions" in found.warnings[-1]


def test_a_foreign_instruction_among_the_sets_is_named() -> None:
    rows = [*judged(), annotation(instruction="Not in the set.", place="a.json row 61")]
    with pytest.raises(
        DataError, match=r"a\.json row 61: the instruction is not one of AlpacaEval's, as in 1 of 61 rows"
    ):
        score(rows, DATA)


def test_another_instruction_set_is_a_hybrid_without_borrowed_parts() -> None:
    rows = judged(instructions=tuple(f"Another {number}." for number in range(COUNT)))
    found = score(rows, DATA)
    assert found.lc_label == "hybrid"
    assert found.lc_reason == "another instruction set"
    assert numbers(found) == numbers(score(rows, borrowed(seed=9)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"annotator": "llama"}, "another judge, llama"),
        ({"annotator": ""}, "another judge, not named"),
        ({"generator_1": "gpt-5"}, "another baseline, gpt-5"),
        ({"annotator": "llama", "generator_1": "gpt-5"}, "another judge, llama; another baseline, gpt-5"),
    ],
)
def test_another_judge_or_baseline_is_a_hybrid_that_needs_no_data(changes: dict[str, str], reason: str) -> None:
    rows = [replace(row, **changes) for row in judged()]
    assert not scoring.needs_data(rows)
    found = score(rows, AlpacaEvalData())
    assert found.lc_label == "hybrid"
    assert found.lc_reason == reason
    assert found.data == "not used"
    assert found.lc_standard_error > 0
    assert found.lc_low <= found.length_controlled_winrate <= found.lc_high
    assert "does not compare with the leaderboard" in found.warnings[0]


def test_a_hybrid_does_not_depend_on_the_order_of_rows() -> None:
    rows = [replace(row, annotator="llama") for row in judged()]
    assert numbers(score(rows, AlpacaEvalData())) == numbers(score(rows[::-1], AlpacaEvalData()))


def test_a_hybrid_of_too_few_rows_has_no_length_controlled_win_rate() -> None:
    found = score([replace(row, annotator="llama") for row in judged()[:4]], AlpacaEvalData())
    assert found.length_controlled_winrate is None
    assert "needs at least 5 judgments" in found.lc_reason


def test_without_the_borrowed_parts_the_win_rate_remains(complete: AlpacaEvalScore) -> None:
    found = score(judged(), AlpacaEvalData(missing="df_gamed.csv is not here"))
    assert found.win_rate == complete.win_rate
    assert found.length_controlled_winrate is None
    assert found.lc_low is None
    assert found.lc_reason == "df_gamed.csv is not here"
    assert found.data == "missing"


def test_without_the_evaluation_set_nothing_is_guessed_about_the_order() -> None:
    found = score(judged(), replace(DATA, instructions=()))
    assert found.length_controlled_winrate is None
    assert "not the complete evaluation set in order" in found.lc_reason


def test_without_the_evaluation_set_its_complete_order_is_recognised(
    complete: AlpacaEvalScore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gshf_release.data.hashing import sha256_json
    from gshf_release.evaluation.alpaca_eval import data

    monkeypatch.setattr(data, "ORDER_SHA256", sha256_json(list(INSTRUCTIONS)))
    assert numbers(score(judged(), replace(DATA, instructions=()))) == numbers(complete)


def test_without_the_evaluation_set_the_position_rule_still_works(complete: AlpacaEvalScore) -> None:
    found = score(judged(), replace(DATA, instructions=()), as_published=True)
    assert numbers(found) == numbers(complete)
    assert found.lc_difference is None
    assert "was not checked" in found.warnings[0]


def test_equal_lengths_leave_the_difficulties() -> None:
    rows = [replace(row, output_1="aaa", output_2="bbb") for row in judged()]
    found = score(rows, DATA)
    assert found.length_controlled_winrate == pytest.approx(found.win_rate, abs=5)
    assert found.lc_label == "length_controlled_v1"


def test_rows_without_a_judgment_are_predicted_not_fitted() -> None:
    rows = judged()
    found = score([replace(rows[0], preference=None), *rows[1:]], DATA)
    assert (found.n_total, found.n_null) == (COUNT - 1, 1)
    assert found.length_controlled_winrate is not None
    assert "1 rows have no judgment" in found.warnings[0]


def test_the_baseline_against_itself_is_half() -> None:
    found = score([replace(row, generator_2=BASELINE) for row in judged()], AlpacaEvalData())
    assert found.length_controlled_winrate == 50
    assert found.lc_reason == "the baseline itself"


def test_difficulties_that_do_not_reach_the_set_are_an_error() -> None:
    with pytest.raises(DataError, match="difficulties for 30 instructions, row 60 of the evaluation set is needed"):
        score(judged(), replace(DATA, difficulty=DATA.difficulty[:30]))


def test_rows_of_two_models_are_not_one_score() -> None:
    rows: list[Annotation] = [annotation(), annotation(generator_2="other")]
    with pytest.raises(DataError, match="mix models"):
        score(rows, DATA)
    with pytest.raises(DataError, match="no rows"):
        score([], DATA)


def test_the_price_is_the_sum_of_the_rows() -> None:
    rows = [replace(row, annotator="llama", price=0.25) for row in judged()[:4]]
    assert score(rows, AlpacaEvalData()).price == 1.0
