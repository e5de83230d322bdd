"""The verdict from hand-made cells."""

from __future__ import annotations

import pytest

from gshf_release.data.results import Cell
from gshf_release.diagnostics.explanations import TRACKED, WHERE_ENDED
from gshf_release.diagnostics.exploration import LENGTH_REWARD
from gshf_release.diagnostics.row_metrics import ALL_RULES_KEPT, REPETITION_RISE
from gshf_release.diagnostics.verdict import Kind, diagnose, verdict
from tests.diagnostics.rows import GREEDY, REWARD, SECOND, WARM, all_at, gains


def test_a_gain_everywhere_is_learning() -> None:
    assert verdict(gains(all_at(0.3))) == (
        "iteration-1 learned: it is better than the base under both scorers, greedily and at T=0.7. Of 4 gains tested together "
        "(one-sided t, Holm, 2.5% for all of them) these of iteration-1 stand: training reward greedily, training reward at "
        "T=0.7, second scorer greedily, second scorer at T=0.7. The primary endpoint, fixed beforehand (iteration-1, training "
        "reward, greedy, test prompts): 0.30 ± 0.10, p = 0.002; it stands."
    )


def test_two_standard_errors_are_no_gain_where_four_are_looked_at() -> None:
    assert verdict(gains(all_at(0.2))) == (
        "iteration-1 shows no gain that stands. Of 4 gains tested together (one-sided t, Holm, 2.5% for all of them) none of "
        "iteration-1 stands. The primary endpoint, fixed beforehand (iteration-1, training reward, greedy, test prompts): "
        "0.20 ± 0.10, p = 0.024; it does not stand."
    )


def test_a_gain_that_a_lower_temperature_reaches_is_sharpening() -> None:
    values = all_at(0.3) | {(REWARD, GREEDY): (0.0, 0.1)}
    assert "iteration-1 sharpened" in verdict(gains(values, over_control=0.1))
    assert "second scorer greedily" in verdict(gains(values, over_control=0.1))


def test_a_gain_beyond_the_sharpened_base_is_learning() -> None:
    values = all_at(0.3) | {(SECOND, GREEDY): (0.0, 0.1)}
    assert "than the base sharpened by a lower temperature" in verdict(gains(values, over_control=0.3))


def test_a_gain_under_the_second_scorer_alone_is_said_so() -> None:
    values = all_at(0.0) | {(SECOND, GREEDY): (0.3, 0.1)}
    assert "under the second scorer only" in verdict(gains(values))


def test_a_mixed_gain_lists_where() -> None:
    values = all_at(0.0) | {(SECOND, GREEDY): (0.3, 0.1), (REWARD, WARM): (0.3, 0.1)}
    found = verdict(gains(values))
    assert "gained in part" in found
    assert "training reward at T=0.7, second scorer greedily. The primary" in found


def test_shorter_answers_are_mentioned() -> None:
    assert "0.50 times as long" in verdict(gains(all_at(0.3), length=5.0))


def test_a_gain_under_the_training_reward_alone_is_not_confirmed() -> None:
    values = all_at(0.3) | {(SECOND, GREEDY): (0.0, 0.1), (SECOND, WARM): (0.0, 0.1)}
    assert "the second scorer does not confirm it" in verdict(gains(values))


def test_rules_that_a_program_checked_are_said_to_be_kept_beside_what_training_did_not_see() -> None:
    values = all_at(0.4) | {(SECOND, GREEDY): (0.0, 0.1), (SECOND, WARM): (0.0, 0.1)}
    kept = [Cell(table="test", row="iteration-1", metric=ALL_RULES_KEPT, judge=REWARD, decoding=GREEDY, value=30.0)]
    found = diagnose([*gains(values), *kept])
    assert found.kind == "learned its rules"
    assert found.text.startswith(
        "iteration-1 learned to keep the kinds of rules that it was trained on: more than the base greedily and at T=0.7; "
        "under the second scorer, which knows no rules, 0.00 ± 0.10. Of"
    )
    warm = values | {(REWARD, GREEDY): (0.0, 0.1)}
    assert diagnose([*gains(warm), *kept]).kind == "gained in part", "a lower temperature may do that"


def test_a_loss_is_no_gain() -> None:
    assert "shows no gain" in verdict(gains(all_at(-1.0)))


def test_longer_answers_are_mentioned() -> None:
    assert verdict(gains(all_at(0.3), length=20.0)).endswith("Its answers are 2.00 times as long as the base's.")
    assert "as long" not in verdict(gains(all_at(0.3), length=11.0))


def cut(base: float, own: float) -> list[Cell]:
    place = {"table": "test", "metric": "cut", "decoding": WARM, "unit": "%"}
    return [Cell(row="base", value=base, **place), Cell(row="iteration-1", value=own, **place)]


def test_a_gain_in_answers_that_now_end_is_called_finishing() -> None:
    ended = [*left(WHERE_ENDED, 0.1), *left(WHERE_ENDED, 0.15, SECOND)]
    text = verdict([*gains(all_at(1.0)), *cut(60.0, 5.0), *ended])
    assert "learned" in text
    assert "60% of the base's answers are cut, 5% of its own" in text
    assert "the gain is 0.10 ± 0.10 under the training reward, 0.15 ± 0.10 under the second scorer" in text


@pytest.mark.parametrize(("own", "said"), [(41.0, False), (39.0, True)])
def test_finishing_is_mentioned_from_twenty_points_fewer_cut_answers(own: float, said: bool) -> None:
    ended = [*left(WHERE_ENDED, 0.1), *left(WHERE_ENDED, 0.1, SECOND)]
    assert ("finish" in verdict([*gains(all_at(1.0)), *cut(60.0, own), *ended])) is said


def test_finishing_needs_a_gain_under_both_scorers() -> None:
    ended = [*left(WHERE_ENDED, 0.1), *left(WHERE_ENDED, 0.1, SECOND)]
    assert "finish" not in verdict([*gains(REWARD_ONLY), *cut(60.0, 5.0), *ended])


def test_finishing_is_not_mentioned_where_answers_that_ended_gained_too() -> None:
    ended = [*left(WHERE_ENDED, 1.0), *left(WHERE_ENDED, 1.0, SECOND)]
    assert "finish" not in verdict([*gains(all_at(1.0)), *cut(60.0, 5.0), *ended])
    assert "finish" not in verdict([*gains(all_at(1.0)), *cut(10.0, 5.0), *left(WHERE_ENDED, 0.0)])


def test_nothing_evaluated_is_said_so() -> None:
    assert verdict([]) == "No iteration was evaluated."


def test_a_gain_without_a_standard_error_is_not_significant() -> None:
    cells = [cell.model_copy(update={"standard_error": None}) for cell in gains(all_at(9.0))]
    assert "shows no gain" in verdict(cells)


REWARD_ONLY = all_at(1.0) | {(SECOND, GREEDY): (0.0, 0.1), (SECOND, WARM): (0.0, 0.1)}


def left(metric: str, share: float | None, judge: str = REWARD) -> list[Cell]:
    """Return what an explanation leaves of the gain, at both decodings."""
    return [
        Cell(
            table="test",
            row="iteration-1",
            metric=metric,
            judge=judge,
            decoding=place,
            value=share,
            standard_error=0.1,
            n=96,
        )
        for place in (GREEDY, WARM)
    ]


def pattern(rise: float, kind: str = "opening", share: float | None = 0.1) -> list[Cell]:
    place = {"table": "test", "row": "iteration-1", "unit": "% of answers", "note": f'{kind} "sure here is"'}
    cells = left("gain at equal pattern", share)
    for decoding in (GREEDY, WARM):
        cells.append(Cell(metric=f"rise of {kind}", value=rise, standard_error=2.0, n=96, decoding=decoding, **place))
        cells.append(
            Cell(metric=f"use of {kind}", value=rise + 1, standard_error=2.0, n=96, decoding=decoding, **place)
        )
    return cells


def entropy(value: float) -> list[Cell]:
    place = {"table": "validation", "metric": "entropy", "decoding": "T=1"}
    return [Cell(row="base", value=2.0, **place), Cell(row="iteration-1", value=value, **place)]


def preference(value: float) -> list[Cell]:
    return [Cell(table="training", row="iteration-1", metric=LENGTH_REWARD, judge=REWARD, value=value)]


def kind(*cells: list[Cell]) -> Kind:
    return diagnose([cell for group in cells for cell in group]).kind


def test_a_gain_that_came_with_the_length_is_got_longer() -> None:
    cells = [*gains(REWARD_ONLY, length=15.0), *left("gain at equal length", 0.1), *preference(0.8)]
    assert diagnose(cells).kind == "got longer"
    assert "got longer: at equal length 10% of the gain under the training reward is left" in verdict(cells)
    assert "(Pearson 0.80)" in verdict(cells)


@pytest.mark.parametrize(
    ("length", "share", "pearson"),
    [(11.0, 0.1, 0.8), (15.0, 0.6, 0.8), (15.0, 0.1, 0.2)],
    ids=["no longer", "most of the gain is left at equal length", "the reward does not prefer length"],
)
def test_got_longer_needs_all_its_signs(length: float, share: float, pearson: float) -> None:
    cells = [gains(REWARD_ONLY, length=length), left("gain at equal length", share), preference(pearson)]
    assert kind(*cells) == "gained in part"


@pytest.mark.parametrize(
    ("length", "pearson", "found"),
    [
        (11.4, 0.8, "gained in part"),
        (11.6, 0.8, "got longer"),
        (15.0, 0.29, "gained in part"),
        (15.0, 0.3, "got longer"),
    ],
)
def test_got_longer_begins_at_a_seventh_in_length_and_a_medium_correlation(
    length: float, pearson: float, found: Kind
) -> None:
    assert kind(gains(REWARD_ONLY, length=length), left("gain at equal length", 0.1), preference(pearson)) == found


def test_what_is_left_is_the_mean_over_the_decodings() -> None:
    greedy, warm = left("gain at equal length", 0.2)[:1], left("gain at equal length", 0.4)[1:]
    text = verdict([*gains(REWARD_ONLY, length=15.0), *greedy, *warm, *preference(0.8)])
    assert "at equal length 30% of the gain" in text


def test_longer_answers_that_the_second_scorer_likes_at_equal_length_are_learning() -> None:
    cells = [gains(all_at(1.0), length=15.0), left("gain at equal length", 0.2), preference(0.8)]
    assert kind(*cells) == "got longer"
    assert kind(*cells, left("gain at equal length", 0.5, judge=SECOND)) == "learned"
    assert kind(*cells, left("gain at equal length", 0.5, judge=SECOND)[:1]) == "got longer"


def test_where_nothing_is_left_there_is_nothing_to_confirm() -> None:
    cells = [gains(all_at(1.0), length=15.0), left("gain at equal length", 0.05), preference(0.8)]
    assert kind(*cells, left("gain at equal length", 0.5, judge=SECOND)) == "got longer"


def test_a_gain_that_came_with_a_pattern_is_gamed() -> None:
    cells = [*gains(REWARD_ONLY), *pattern(70.0)]
    assert diagnose(cells).kind == "gamed a template"
    assert (
        'gamed a template (opening "sure here is": 71% of answers at T=0.7, 70 points more than the base\'s); at equal use 10%'
    ) in verdict(cells)


def test_a_pattern_that_cannot_be_told_from_the_gain_explains_it() -> None:
    assert kind(gains(REWARD_ONLY), pattern(100.0, share=None)) == "gamed a template"


@pytest.mark.parametrize(
    ("of", "rise", "found"), [("opening", 29.0, "gained in part"), ("word", 6.0, "gamed a template")]
)
def test_each_kind_of_pattern_has_its_own_threshold(of: str, rise: float, found: Kind) -> None:
    assert kind(gains(REWARD_ONLY), pattern(rise, of)) == found


@pytest.mark.parametrize(("rise", "found"), [(29.9, "gained in part"), (30.0, "gamed a template")])
def test_an_opening_in_thirty_more_answers_of_a_hundred_is_a_pattern(rise: float, found: Kind) -> None:
    assert kind(gains(REWARD_ONLY), pattern(rise)) == found


@pytest.mark.parametrize(("share", "found"), [(0.49, "gained in part"), (0.5, "gamed a template")])
def test_a_smaller_rise_counts_where_the_gain_goes_with_it(share: float, found: Kind) -> None:
    place = {"table": "test", "row": "iteration-1", "metric": TRACKED, "judge": REWARD}
    tracked = [Cell(value=share, decoding=decoding, **place) for decoding in (GREEDY, WARM)]
    assert kind(gains(REWARD_ONLY), pattern(4.5, "word"), tracked) == found
    assert kind(gains(REWARD_ONLY), pattern(3.0, "word"), tracked) == "gained in part"  # within two standard errors


def test_a_pattern_that_leaves_the_gain_is_no_explanation() -> None:
    assert kind(gains(REWARD_ONLY), pattern(70.0, share=0.6)) == "gained in part"


def test_the_explanation_that_leaves_least_is_named() -> None:
    longer = [gains(REWARD_ONLY, length=15.0), preference(0.8), pattern(70.0, share=0.2)]
    assert kind(*longer, left("gain at equal length", 0.1)) == "got longer"
    assert kind(*longer, left("gain at equal length", 0.3)) == "gamed a template"


def test_sharpening_needs_a_fall_of_entropy_where_entropy_is_known() -> None:
    cells = gains(REWARD_ONLY | {(REWARD, GREEDY): (0.0, 0.1)}, over_control=0.2)
    assert kind(cells, entropy(1.6)) == "sharpened"
    assert kind(cells, entropy(1.9)) == "gained in part"
    assert "its entropy is 0.80 of the base's" in verdict([*cells, *entropy(1.6)])


def over_control(baseline: str, value: float) -> list[Cell]:
    place = {"table": "test", "row": "iteration-1", "metric": "gain over control", "decoding": WARM, "n": 96}
    return [
        Cell(judge=judge, baseline=baseline, value=value, standard_error=0.1, **place) for judge in (REWARD, SECOND)
    ]


def test_the_lower_temperature_that_comes_nearest_says_what_sharpening_leaves() -> None:
    cells = gains(REWARD_ONLY | {(REWARD, GREEDY): (0.0, 0.1)})
    text = verdict([*cells, *over_control("base at T=0.3", 0.4), *over_control("base at T=0.5", 0.1)])
    assert "leaves 10% of that gain" in text


def test_the_control_of_the_recipe_decides_whether_a_gain_is_beyond_sharpening() -> None:
    cells = gains(all_at(1.0) | {(SECOND, GREEDY): (0.0, 0.1)})
    beyond, within = over_control("base at T=0.3", 0.9), over_control("base at T=0.5", 0.1)
    assert kind(cells, beyond, within) == "learned"
    renamed = over_control("base at T=0.3", 0.1), over_control("base at T=0.5", 0.9)
    assert kind(cells, *renamed) != "learned"


def test_a_gain_over_the_sharpened_base_under_one_scorer_is_not_learning() -> None:
    cells = gains(all_at(1.0) | {(REWARD, GREEDY): (0.0, 0.1)}, over_control=0.1)
    assert kind(cells, entropy(1.9)) == "gained in part"


def test_no_gain_is_nothing_whatever_else_changed() -> None:
    assert kind(gains(all_at(0.0), length=30.0), pattern(90.0), preference(0.9), entropy(1.0)) == "nothing"


def test_a_loss_of_variety_is_mentioned() -> None:
    place = {"table": "test", "metric": "distinct-2", "decoding": WARM}
    cells = [Cell(row="base", value=0.8, **place), Cell(row="iteration-1", value=0.4, **place)]
    assert verdict([*gains(all_at(0.3)), *cells]).endswith("They vary less: distinct-2 is 0.50 of the base's.")


@pytest.mark.parametrize(("own", "said"), [(0.71, False), (0.69, True)])
def test_a_loss_of_variety_is_mentioned_below_seven_tenths(own: float, said: bool) -> None:
    place = {"table": "test", "metric": "distinct-2", "decoding": WARM}
    cells = [Cell(row="base", value=1.0, **place), Cell(row="iteration-1", value=own, **place)]
    assert ("They vary less" in verdict([*gains(all_at(0.3)), *cells])) is said


def repetition(rise: float, error: float, decoding: str = GREEDY) -> list[Cell]:
    place = {"table": "test", "row": "iteration-1", "metric": REPETITION_RISE, "decoding": decoding}
    return [Cell(value=rise, standard_error=error, n=96, **place)]


@pytest.mark.parametrize("decoding", [GREEDY, WARM])
def test_a_policy_that_repeats_itself_has_not_learned(decoding: str) -> None:
    found = diagnose([*gains(all_at(0.3)), *repetition(25.0, 4.0, decoding)])
    assert found.kind == "repeats itself"
    assert "gained, but repeats itself" in found.text
    assert "25 percentage points more of its 4-grams than of the base's" in found.text


def test_repetition_that_is_small_or_within_its_error_ends_nothing() -> None:
    assert kind(gains(all_at(0.3)), repetition(9.9, 1.0)) == "learned"
    assert kind(gains(all_at(0.3)), repetition(10.0, 1.0)) == "repeats itself"
    assert kind(gains(all_at(0.3)), repetition(25.0, 20.0)) == "learned"
    assert kind(gains(all_at(0.3)), repetition(-25.0, 1.0)) == "learned"


def test_a_gain_that_did_not_count_as_learning_anyway_keeps_its_name() -> None:
    found = diagnose([*gains(REWARD_ONLY), *repetition(25.0, 4.0)])
    assert found.kind == "gained in part"
    assert "It repeats itself" in found.text


def test_an_earlier_iteration_can_be_asked_for() -> None:
    later = [cell.model_copy(update={"row": "iteration-2"}) for cell in gains(all_at(0.0)) if cell.row == "iteration-1"]
    cells = [*gains(all_at(0.3)), *later]
    assert diagnose(cells).kind == "nothing"
    assert diagnose(cells, row="iteration-1").kind == "learned"
