"""Contrast pairs for a stand-in scorer: an answer of the base model, and a worse one made from it.

Both sides come from the same policy at the same temperature; partners are matched in length, so neither temperature nor length
alone tells them apart. What the scorer learns is fluency, completeness and being on topic: a stand-in for human preference, no
more.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gshf_release.hashing import seed_from
from gshf_release.records import Contrast, Prompt, Sample

MINIMUM_WORDS = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """A prompt with one answer to it."""

    prompt: Prompt
    sample: Sample


def build(answers: Sequence[Answer], kinds: Sequence[str], *, seed: int, held_out: float) -> list[Contrast]:
    """Return the contrasts of every answer for every kind that can be made from it.

    Whether a pair is held out is decided by its prompt, so no prompt is on both sides.

    Args:
        answers: Answers of the base model.
        kinds: Names in `DAMAGES`, or `other_prompt`.
        seed: The run's seed.
        held_out: Share of prompts kept from training.
    """
    contrasts = []
    for answer in answers:
        prompt_id = answer.prompt.prompt_id
        out = random.Random(seed_from(seed, "held-out", prompt_id)).random() < held_out
        for kind in kinds:
            draw = random.Random(seed_from(seed, "contrast", kind, prompt_id, answer.sample.sample_index))
            worse = (
                _other_prompt(answer, answers, out, seed, held_out)
                if kind == "other_prompt"
                else DAMAGES[kind](answer.sample, draw)
            )
            if worse is not None and worse != answer.sample.text:
                contrasts.append(Contrast(prompt_id, kind, answer.prompt.messages, answer.sample.text, worse, out))
    return contrasts


def _other_prompt(answer: Answer, answers: Sequence[Answer], out: bool, seed: int, held_out: float) -> str | None:
    """Return the answer to another prompt of the same side of the split that is nearest in length."""

    def same_side(other: Answer) -> bool:
        return (random.Random(seed_from(seed, "held-out", other.prompt.prompt_id)).random() < held_out) == out

    others = [
        other
        for other in answers
        if other.prompt.prompt_id != answer.prompt.prompt_id
        and other.sample.finish_reason == answer.sample.finish_reason
        and same_side(other)
    ]
    if not others:
        return None
    length = len(answer.sample.text)
    return min(others, key=lambda other: (abs(len(other.sample.text) - length), other.prompt.prompt_id)).sample.text


def dropped(sample: Sample, draw: random.Random) -> str | None:
    """Return the answer with about a fifth of its words left out."""
    words = sample.text.split(" ")
    if len(words) < MINIMUM_WORDS:
        return None
    kept = [word for word in words if draw.random() > 0.2]
    return " ".join(kept)


def shuffled(sample: Sample, draw: random.Random) -> str | None:
    """Return the answer with the words inside a few windows in random order."""
    words = sample.text.split(" ")
    if len(words) < MINIMUM_WORDS:
        return None
    for start in range(0, len(words), 6):
        window = words[start : start + 6]
        if draw.random() < 0.5:
            draw.shuffle(window)
            words[start : start + 6] = window
    return " ".join(words)


def cut(sample: Sample, draw: random.Random) -> str | None:
    """Return a complete answer broken off in mid-sentence; an answer that was itself cut has no such pair."""
    words = sample.text.split(" ")
    if sample.finish_reason != "stop" or len(words) < MINIMUM_WORDS:
        return None
    keep = max(3, int(len(words) * draw.uniform(0.5, 0.9)))
    return " ".join(words[:keep]).rstrip(" .!?")


def repeated(sample: Sample, draw: random.Random) -> str | None:
    """Return the answer with one of its sentences said again until the length is reached."""
    sentences = [part for part in re.split(r"(?<=[.!?\n])\s+", sample.text) if len(part.split()) >= 3]
    if not sentences:
        return None
    chosen = draw.randrange(len(sentences))
    text = " ".join(sentences[: chosen + 1])
    while len(text) < len(sample.text) or text.count(sentences[chosen]) < 2:
        text += " " + sentences[chosen]
    return text


DAMAGES: dict[str, Callable[[Sample, random.Random], str | None]] = {
    "dropped": dropped,
    "shuffled": shuffled,
    "cut": cut,
    "repeated": repeated,
}
