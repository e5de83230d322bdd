"""The distribution that tokens are drawn from, beside transformers' own warpers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from gshf_release.sampling.protocol import Decoding
from gshf_release.sampling.token_sampling import draw_tokens, probabilities


def warped(logits: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Return the probabilities of one row by transformers' warpers, in the order in which `generate` applies them."""
    scores = TemperatureLogitsWarper(decoding.temperature)(None, logits.unsqueeze(0))
    if decoding.top_k:
        scores = TopKLogitsWarper(decoding.top_k)(None, scores)
    if decoding.top_p < 1:
        scores = TopPLogitsWarper(decoding.top_p)(None, scores)
    return scores.softmax(dim=-1)[0]


DECODINGS = st.builds(
    Decoding,
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.5]),
    max_new_tokens=st.just(1),
    top_p=st.sampled_from([1.0, 0.95, 0.8, 0.5, 0.1]),
    top_k=st.sampled_from([0, 1, 2, 5, 20, 1000]),
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.lists(DECODINGS, min_size=1, max_size=5))
def test_every_row_has_the_distribution_of_transformers_warpers(seed: int, decodings: list[Decoding]) -> None:
    """Rows of one batch, each with its own rule; at random logits, which have no ties."""
    logits = 3 * torch.randn(len(decodings), 60, generator=torch.Generator().manual_seed(seed))
    found = probabilities(logits, decodings)
    for row, decoding, own in zip(logits, decodings, found, strict=True):
        torch.testing.assert_close(own / own.sum(), warped(row, decoding), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("top_k", "top_p"), [(2, 1.0), (3, 1.0), (2, 0.6), (3, 0.9)])
def test_ties_at_the_last_place_stay_as_in_transformers(top_k: int, top_p: float) -> None:
    """Logits 3, 2, 2, 2, 1: the second likeliest ties with two others."""
    logits, decoding = torch.tensor([1.0, 2.0, 3.0, 2.0, 2.0]), Decoding(1.0, 1, top_p, top_k)
    own = probabilities(logits.unsqueeze(0), [decoding])[0]
    torch.testing.assert_close(own / own.sum(), warped(logits, decoding))


def test_the_nucleus_is_that_of_what_top_k_leaves() -> None:
    """Of 0.4, 0.3, 0.2, 0.1 the first two are 4/7 and 3/7: the first holds half of that, but not half of all."""
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    found = probabilities(logits, [Decoding(1.0, 1, top_p=0.5, top_k=2)])
    assert (found > 0).tolist() == [[True, False, False, False]]
    assert draw_tokens(logits, [Decoding(1.0, 1, top_p=0.5, top_k=2)], [0.999]).tolist() == [0]


def test_a_number_on_the_edge_of_two_tokens_picks_the_second() -> None:
    """Two equal tokens: F is 1/2 and 1, and the second has F(0) <= u."""
    even = torch.zeros(1, 2)
    assert [draw_tokens(even, [Decoding(1.0, 1)], [u]).item() for u in (0.0, 0.4999, 0.5)] == [0, 0, 1]


def test_the_smallest_number_picks_no_token_outside_top_k() -> None:
    assert draw_tokens(torch.tensor([[0.0, 5.0]]), [Decoding(1.0, 1, top_k=1)], [0.0]).item() == 1


def test_the_nucleus_ends_where_it_holds_top_p() -> None:
    """Of two equal tokens one holds a half already, and the likeliest stays however little is asked for."""
    even = torch.zeros(1, 2)
    assert (probabilities(even, [Decoding(1.0, 1, top_p=0.5)]) > 0).tolist() == [[False, True]]
    assert (probabilities(even, [Decoding(1.0, 1, top_p=1e-17)]) > 0).tolist() == [[False, True]]


def test_at_temperature_zero_a_row_gets_its_likeliest_token_whatever_its_number() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 40.0]])
    assert draw_tokens(logits, [Decoding(0.0, 1), Decoding(1.0, 1)], [0.999, 0.5]).tolist() == [1, 2]
