"""Five answers of rising badness to one prompt: does a reward model see the difference before hours are spent on it?

The answers are about equally long, so that a liking for length does not put them in order by chance. They show a broken set-up
(wrong template, flipped sign, unread answer), not the quality of a model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gshf_release.data.records import Message
from gshf_release.rewards import Duel, PairwiseModel, RewardModel
from gshf_release.rewards.ensemble import EnsembleReward, score_all
from gshf_release.rewards.pairwise import GenerativePreference, question, round_robin
from gshf_release.rewards.sequence_classification import SequenceClassificationReward

PROMPT = "Why does ice float on water? Answer in two sentences."
ANSWERS: dict[str, str] = {
    "clear and right": "Water expands when it freezes, because its molecules settle into an open lattice. "
    "Ice is therefore less dense than liquid water, and so it floats.",
    "right but vague": "Ice floats because it is somehow lighter than the water around it. "
    "It has to do with the way in which water changes when it gets very cold.",
    "fluent but wrong": "Freezing water pumps its warm air out and leaves a vacuum behind in the ice. "
    "This vacuum is drawn towards the sky, and so the ice stays on top.",
    "off topic": "Rome was once the capital of an empire that ruled a large part of Europe. "
    "Many of its roads were built so well that they are still in use today.",
    "broken": "Float the because water lattice lattice is and so so dense the of of. "
    "Molecules it ice ice therefore an it and when float of water the the.",
}
"""From good to bad; name: text."""


class Probe(NamedTuple):
    """Records what a model made of the five answers."""

    rendered: str
    """The first of them as the model reads it."""
    scores: dict[str, float]
    """`{name: score}`, in the order of `ANSWERS`."""
    deviations: dict[str, float]
    """Standard deviation across members, if the model is an ensemble."""
    folded: bool
    """Whether a system turn was folded into the user turn."""

    @property
    def order(self) -> list[str]:
        """The names from the highest score to the lowest."""
        return sorted(self.scores, key=lambda name: -self.scores[name])

    @property
    def warning(self) -> str:
        """Return what is wrong with the order, in words; nothing if it is as expected."""
        values = list(self.scores.values())
        if not np.isfinite(values).all():
            return "it gives scores that are no finite numbers"
        if max(values) == min(values):
            return "it gives all five answers the same score: it may not read the answer at all"
        names = list(self.scores)
        wrong = [
            f"{names[worse]!r} {'as high as' if values[worse] == values[better] else 'above'} {names[better]!r}"
            for better in range(len(names))
            for worse in range(better + 1, len(names))
            if values[worse] >= values[better]
        ]
        if len(wrong) > 6:
            return f"it has {len(wrong)} of 10 comparisons the wrong way round: check its sign, template and head"
        return f"it scores {', '.join(wrong)}" if wrong else ""


def probe(model: RewardModel | PairwiseModel, system: str | None = None) -> Probe:
    """Return what a model makes of the five answers.

    Args:
        model: Any scorer.
        system: A system turn before the prompt, as the recipe puts it.
    """
    before = [] if system is None else [Message(role="system", content=system)]
    asked = [*before, Message(role="user", content=PROMPT)]
    conversations = [[*asked, Message(role="assistant", content=text)] for text in ANSWERS.values()]
    deviations: dict[str, float] = {}
    if isinstance(model, PairwiseModel):
        texts = {("probe", number): text for number, text in enumerate(ANSWERS.values())}
        scores = list(round_robin(model, {"probe": asked}, texts).values())
    else:
        found = score_all(model, conversations)
        scores = [float(value) for value in found.rewards]
        if found.deviations is not None:
            deviations = dict(zip(ANSWERS, map(float, found.deviations), strict=True))
    folded = bool(getattr(model, "folded", 0))
    return Probe(rendered(model, conversations[0]), dict(zip(ANSWERS, scores, strict=True)), deviations, folded)


def rendered(model: RewardModel | PairwiseModel, conversation: Sequence[Message]) -> str:
    """Return a conversation as a model reads it; of an ensemble, as its first member does."""
    if isinstance(model, EnsembleReward):
        return rendered(model.members[0](), conversation)
    if isinstance(model, SequenceClassificationReward):
        return model.renderer.text(conversation)
    if isinstance(model, GenerativePreference):
        duel = Duel(conversation[:-1], conversation[-1]["content"], list(ANSWERS.values())[-1])
        return model.renderer.text(question(duel), answer_follows=True)
    return json.dumps(list(conversation), ensure_ascii=False)
