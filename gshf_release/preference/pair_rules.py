"""Choose the chosen and the rejected one of n ranked responses. A new rule is one function and one line in `CHOICES`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gshf_release.preference.ranking import Candidate, best, worst
from gshf_release.recipe import Pairs


class ChosenRejected(NamedTuple):
    """The chosen and the rejected response."""

    chosen: Candidate
    rejected: Candidate


def best_vs_worst(found: Sequence[Candidate], rules: Pairs, draw: random.Random) -> ChosenRejected | None:
    """Return the best and the worst: both exploration policies at once (section 3.2 of arXiv 2405.07863)."""
    return ChosenRejected(best(found), worst(found))


def best_vs_random(found: Sequence[Candidate], rules: Pairs, draw: random.Random) -> ChosenRejected | None:
    """Return the best and any other."""
    top = best(found)
    return ChosenRejected(top, draw.choice([entry for entry in found if entry is not top]))


def first_vs_random(found: Sequence[Candidate], rules: Pairs, draw: random.Random) -> ChosenRejected | None:
    """Return the first response and any other, the better of the two as chosen: two plain draws from the policy."""
    return _ordered(found[0], draw.choice(found[1:]))


def rejection_sampling(found: Sequence[Candidate], rules: Pairs, draw: random.Random) -> ChosenRejected | None:
    """Return two responses accepted by multi-step rejection sampling, the better as chosen; None if fewer are accepted.

    The steps go from pi to pi exp(r / eta_1) to ... to pi exp(r / eta_N) with eta_1 > ... > eta_N; what is accepted at one step
    is proposed at the next. A proposal is accepted with probability exp(d (r - max r)), where d = 1 / eta_i - 1 / eta_(i-1) and
    1 / eta_0 = 0 (arXiv 2312.11456, known from summaries; the pair of two accepted responses follows arXiv 2309.06657).
    """
    accepted, before = list(found), 0.0
    for eta in rules.etas:
        scale, before = 1 / eta - before, 1 / eta
        top = max((entry.value for entry in accepted), default=0.0)
        accepted = [entry for entry in accepted if draw.random() < math.exp(scale * (entry.value - top))]
    if len(accepted) < 2:
        return None
    return _ordered(*draw.sample(accepted, 2))


def _ordered(one: Candidate, other: Candidate) -> ChosenRejected:
    chosen = best([one, other])
    return ChosenRejected(chosen, other if chosen is one else one)


CHOICES: dict[str, Callable[[Sequence[Candidate], Pairs, random.Random], ChosenRejected | None]] = {
    "best-vs-worst": best_vs_worst,
    "best-vs-random": best_vs_random,
    "first-vs-random": first_vs_random,
    "rejection-sampling": rejection_sampling,
}
