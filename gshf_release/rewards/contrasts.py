"""Contrast pairs for a stand-in scorer: an answer of the base model, and a worse one made from it.

Both sides come from the same policy at the same temperature and have the same length, or nearly, so neither temperature
nor length alone tells them apart. What the scorer learns is fluency, completeness and being on topic: a stand-in for human
preference, no more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gshf_release.data.hashing import seed_from
from gshf_release.data.records import Contrast, Prompt, Sample

MINIMUM_WORDS = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """A prompt with one answer to it."""

    prompt: Prompt
    sample: Sample


def build(answers: Sequence[Answer], kinds: Sequence[str], *, seed: int, held_out: float) -> list[Contrast]:
    """Return the contrasts of every answer for every kind that can be made from it.

    Whether a pair is held out is decided by its prompt, so no prompt is on both sides; partners come from the same side.

    Args:
        answers: Answers of the base model.
        kinds: Names in `KINDS`.
        seed: The run's seed.
        held_out: Share of prompts kept from training.
    """
    sides: dict[bool, list[Answer]] = {False: [], True: []}
    for answer in answers:
        sides[seed_share(seed, answer.prompt.prompt_id) < held_out].append(answer)
    contrasts = []
    for out, side in sides.items():
        for answer in side:
            for kind in kinds:
                prompt_id = answer.prompt.prompt_id
                draw = random.Random(seed_from(seed, "contrast", kind, prompt_id, answer.sample.sample_index))
                made = KINDS[kind](answer, side, draw)
                if made is not None and made[0].strip() != made[1].strip():
                    contrasts.append(Contrast(prompt_id, kind, answer.prompt.messages, *made, out))
    return contrasts


def seed_share(seed: int, prompt_id: str) -> float:
    """Return a number in [0, 1) that belongs to the prompt."""
    return random.Random(seed_from(seed, "held-out", prompt_id)).random()


def other_prompt(answer: Answer, side: Sequence[Answer], draw: random.Random) -> tuple[str, str] | None:
    """Return the answer, and the answer to another prompt that is nearest in length and ended in the same way."""
    others = [
        other
        for other in side
        if other.prompt.prompt_id != answer.prompt.prompt_id
        and other.sample.finish_reason == answer.sample.finish_reason
    ]
    if not others:
        return None
    length = len(answer.sample.text)
    nearest = sorted(others, key=lambda other: (abs(len(other.sample.text) - length), other.prompt.prompt_id))[:3]
    return answer.sample.text, draw.choice(nearest).sample.text


def missing_words(answer: Answer, side: Sequence[Answer], draw: random.Random) -> tuple[str, str] | None:
    """Return the beginning of an answer, and as many words of it with about a fifth left out in between."""
    words = answer.sample.text.split(" ")
    kept = [word for word in words if draw.random() > 0.2]
    if answer.sample.finish_reason == "stop" or len(kept) < MINIMUM_WORDS:
        return None
    return " ".join(words[: len(kept)]), " ".join(kept)


def shuffled(answer: Answer, side: Sequence[Answer], draw: random.Random) -> tuple[str, str] | None:
    """Return the answer, and the answer with the words inside a few windows in random order."""
    words = answer.sample.text.split(" ")
    if len(words) < MINIMUM_WORDS:
        return None
    damaged = list(words)
    for start in range(0, len(words), 6):
        window = damaged[start : start + 6]
        if start == 0 or draw.random() < 0.5:
            draw.shuffle(window)
            damaged[start : start + 6] = window
    return answer.sample.text, " ".join(damaged)


def cut(answer: Answer, side: Sequence[Answer], draw: random.Random) -> tuple[str, str] | None:
    """Return a complete answer, and a longer answer to the same prompt broken off at the same length.

    There is no pair where no other answer is longer.
    """
    if answer.sample.finish_reason != "stop" or len(answer.sample.text.split(" ")) < 4:
        return None
    length = len(answer.sample.text.split(" "))
    longer = [
        other.sample.text.split(" ")
        for other in side
        if other.prompt.prompt_id == answer.prompt.prompt_id and len(other.sample.text.split(" ")) > length + 2
    ]
    if not longer:
        return None
    return answer.sample.text, " ".join(draw.choice(longer)[:length]).rstrip(" .!?,;:")


def repeated(answer: Answer, side: Sequence[Answer], draw: random.Random) -> tuple[str, str] | None:
    """Return the answer, and the answer with a few of its words said again and again up to the same length."""
    words = answer.sample.text.split(" ")
    if len(words) < 2 * MINIMUM_WORDS:
        return None
    size = draw.randint(3, min(10, len(words) // 2))
    start = draw.randint(0, len(words) // 2 - 1)
    damaged = words[: start + size]
    while len(damaged) < len(words):
        damaged += words[start : start + size]
    return answer.sample.text, " ".join(damaged[: len(words)])


KINDS: dict[str, Callable[[Answer, Sequence[Answer], random.Random], tuple[str, str] | None]] = {
    "other_prompt": other_prompt,
    "missing_words": missing_words,
    "shuffled": shuffled,
    "cut": cut,
    "repeated": repeated,
}
