"""Numbers from judgments: the error of ratings that come in pairs of turns, and what a stage's identity holds."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.data.statistics import clustered_error
from gshf_release.evaluation.judging import judges
from gshf_release.evaluation.judgments import asked_of

RATINGS = st.lists(st.integers(1, 10).map(float), min_size=2, max_size=20)


def test_the_clustered_error_is_the_hand_computed_one() -> None:
    # mean 6; sums of deviations: (8-6)+(6-6)=2, (4-6)+(6-6)=-2; squares 8; factor 2; /4
    assert clustered_error([[8.0, 6.0], [4.0, 6.0]]) == pytest.approx(math.sqrt(8 * 2) / 4)


@given(RATINGS)
def test_with_one_rating_a_question_it_is_the_usual_error(ratings: list[float]) -> None:
    found = clustered_error([[rating] for rating in ratings])
    assert found == pytest.approx(statistics.stdev(ratings) / math.sqrt(len(ratings)))


@given(RATINGS)
def test_the_same_rating_for_both_turns_is_no_further_evidence(ratings: list[float]) -> None:
    assert clustered_error([[rating, rating] for rating in ratings]) == pytest.approx(
        clustered_error([[rating] for rating in ratings])
    )


def test_one_question_has_no_error() -> None:
    assert clustered_error([[7.0, 8.0]]) is None


def test_where_a_judge_is_and_what_it_costs_does_not_decide_its_judgments() -> None:
    name = "openai-compatible-alpaca-eval"
    here = judges.load(name, ("model=a", "endpoint.address=http://one/v1"))
    there = judges.load(name, ("model=a", "endpoint.address=http://two/v1", "price.input=3.0", "price.output=1.0"))
    other = judges.load(name, ("model=b", "endpoint.address=http://one/v1"))
    assert asked_of(here) == asked_of(there)
    assert asked_of(here) != asked_of(other)
