"""KL estimators on two categorical toy models, whose KL is known exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.data.records import Sample, Trace
from gshf_release.data.results import find
from gshf_release.diagnostics.validation import trace_cells
from gshf_release.models.logprobs import KL_TO_BASE, best_of_n_kl, k3, traces

P = (0.5, 0.3, 0.15, 0.05)
Q = (0.25, 0.25, 0.25, 0.25)
EXACT = 0.5 * math.log(2) + 0.3 * math.log(1.2) + 0.15 * math.log(0.6) + 0.05 * math.log(0.2)
"""KL(P || Q) of one token, 0.2438 nats."""


class Categorical(torch.nn.Module):
    """A language model whose next token never depends on what came before."""

    def __init__(self, probabilities: tuple[float, ...]) -> None:
        super().__init__()
        self.scores = torch.nn.Parameter(torch.tensor(probabilities, dtype=torch.float64).log() + 3.0)

    @property
    def device(self) -> torch.device:
        """Where the weights are, as models of transformers say it."""
        return self.scores.device

    def forward(self, input_ids: Any, logits_to_keep: int, **_: Any) -> Any:
        shape = (len(input_ids), min(logits_to_keep, input_ids.shape[1]), len(self.scores))
        return type("Output", (), {"logits": self.scores.expand(shape)})


def responses(count: int, longest: int = 6) -> list[Sample]:
    """Return responses of 1 to `longest` tokens drawn from P; the token 3 ends none of them."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, longest + 1, count)
    drawn = [draw.choice(4, size=length, p=P).tolist() for length in lengths]
    return [Sample("p", 0, "T=1", 1.0, [0] * (1 + n % 3), ids, "", "stop", "f") for n, ids in enumerate(drawn)]


@pytest.fixture(scope="module")
def rows() -> list[Trace]:
    samples = responses(4000)
    values = traces(Categorical(P), Categorical(Q), Categorical(P), samples, batch=64)
    return [Trace("p", 0, len(s.completion_ids), *value) for s, value in zip(samples, values, strict=True)]


@pytest.mark.parametrize("metric", [KL_TO_BASE, "KL to base (k1)", "KL to base (k3)"])
def test_each_estimator_meets_the_exact_kl(rows: list[Trace], metric: str) -> None:
    expected = EXACT * sum(row.tokens for row in rows) / len(rows)
    found = find(trace_cells(rows, n=4, row="base", table="validation"), metric=metric)
    assert found is not None
    assert found.value == pytest.approx(expected, abs=1e-5 if metric == KL_TO_BASE else 3 * found.standard_error)  # type: ignore[operator]
    assert found.standard_error < 0.02  # type: ignore[operator]


def test_padding_adds_nothing(rows: list[Trace]) -> None:
    samples = responses(4000)[:50]
    alone = traces(Categorical(P), Categorical(Q), Categorical(P), samples, batch=1)
    assert [row.kl_k3 for row in rows[:50]] == pytest.approx([value.kl_k3 for value in alone], abs=1e-6)
    assert [row.kl for row in rows[:50]] == pytest.approx([EXACT * row.tokens for row in rows[:50]], abs=1e-5)


def test_k3_by_hand() -> None:
    own, other = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.0]]).log()
    # r = 1/2: 1/2 - 1 + log 2; the second place is padding, where the other model may say anything.
    assert k3(own, other, torch.tensor([[1.0, 0.0]])).tolist() == pytest.approx([-0.5 + math.log(2)])


def test_k3_varies_less_than_k1_between_close_policies(rows: list[Trace]) -> None:
    assert np.var([row.kl_k3 for row in rows]) < np.var([row.logp_policy - row.logp_base for row in rows])


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=8), st.lists(st.floats(-20, 0), min_size=8, max_size=8))
def test_k3_is_never_negative(own: list[float], other: list[float]) -> None:
    first, second = torch.tensor([own]).double(), torch.tensor([other[: len(own)]]).double()
    assert float(k3(first, second, torch.ones_like(first))) >= -1e-12


def test_best_of_n_kl_by_hand() -> None:
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 3 / 4)
    assert best_of_n_kl(4, rounds=2) == pytest.approx(best_of_n_kl(16))


def test_best_of_n_kl_bounds_the_kl_of_best_of_n_sampling() -> None:
    # Uniform over k values, the best of n: P(i) = (i^n - (i-1)^n) / k^n. The bound is met as k grows.
    n, k = 4, 200
    best = [(i**n - (i - 1) ** n) / k**n for i in range(1, k + 1)]
    exact = sum(p * math.log(p * k) for p in best)
    assert exact < best_of_n_kl(n)
    assert exact == pytest.approx(best_of_n_kl(n), abs=0.02)


@pytest.mark.parametrize(("kl", "exceeded"), [(0.63, False), (0.64, True)])
def test_a_kl_beyond_best_of_n_is_warned_of(kl: float, exceeded: bool) -> None:
    rows = [Trace("p", 0, 2, -1.0, -2.0, 1.0, kl, kl, 0.0)] * 2  # log 4 - 3/4 = 0.636
    bound = find(trace_cells(rows, n=4, row="iteration-1", table="validation"), metric="best-of-n KL bound")
    assert bound is not None
    assert bound.value == pytest.approx(math.log(4) - 0.75)
    assert ("EXCEEDED" in bound.note) is exceeded


def test_later_iterations_may_go_as_far_as_best_of_n_of_best_of_n() -> None:
    rows = [Trace("p", 0, 2, -1.0, -2.0, 1.0, 1.8, 1.8, 0.0)] * 2  # log 16 - 15/16 = 1.835
    bound = find(trace_cells(rows, n=4, row="iteration-2", table="validation"), metric="best-of-n KL bound")
    assert bound is not None
    assert bound.note == "log N - (N - 1)/N for best of 4, 2 times over"


def test_entropy_is_per_token() -> None:
    rows = [Trace("p", 0, 2, -1.0, -1.0, 3.0, 0.0, 0.0, 0.0), Trace("q", 0, 4, -1.0, -1.0, 2.0, 0.0, 0.0, 0.0)]
    entropy = find(trace_cells(rows, n=4, row="base", table="validation"), metric="entropy")
    assert entropy is not None
    assert entropy.value == pytest.approx((1.5 + 0.5) / 2)
