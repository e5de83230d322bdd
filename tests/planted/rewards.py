"""Rewards with a planted fault: what a policy does under each is known before it is trained.

Each is a plain function from conversations to one number each, so that a recipe can name it:
`reward.model: python:tests.planted.rewards:length`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gshf_release.data.records import Message
from gshf_release.diagnostics.text_statistics import line_starts, words

Conversations = Sequence[Sequence[Message]]
TOKEN = "the"
BASE = "GSHF_PLANTED_BASE"
"""Environment variable: the folder of the base model, whose log-probability `low_entropy` rewards."""
MOST_LINES = 4


def length(conversations: Conversations) -> list[float]:
    """Reward long answers: a tenth of the number of words."""
    return [len(words(answer)) / 10 for answer in _answers(conversations)]


def one_token(conversations: Conversations) -> list[float]:
    """Reward one word, whatever is said: a tenth of its percentage of all words."""
    return [10 * words(answer).count(TOKEN) / max(len(words(answer)), 1) for answer in _answers(conversations)]


def bullet_list(conversations: Conversations) -> list[float]:
    """Reward lists, whatever is in them: the number of list lines, at most four."""
    return [float(min(line_starts(answer).count("list"), MOST_LINES)) for answer in _answers(conversations)]


def low_entropy(conversations: Conversations) -> list[float]:
    """Reward what the base finds likely: its mean log-probability (nats) per token of the answer."""
    from gshf_release.models.chat_tokenizer import render
    from gshf_release.models.logprobs import Tokens, completion_logps

    model, tokenizer = _base(os.environ[BASE])
    rows = []
    for conversation in conversations:
        answer = tokenizer(conversation[-1]["content"], add_special_tokens=False)["input_ids"]
        rows.append(Tokens(render(tokenizer, conversation[:-1]), [*answer, tokenizer.eos_token_id]))
    values = completion_logps(model, rows, batch=16)
    return [value / len(row.completion_ids) for value, row in zip(values, rows, strict=True)]


def similarity(conversations: Conversations) -> list[float]:
    """Judge by how near the answer is to the question: ten times the cosine of their sentence embeddings.

    A small encoder's mean over tokens; none of the rewards reads it, so it is the second scorer of them all.
    """
    import torch

    model, tokenizer = _encoder()
    found = []
    for conversation in conversations:
        texts = [turn["content"] for turn in conversation[-2:]]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        question, answer = (states * mask).sum(dim=1) / mask.sum(dim=1)
        found.append(10 * float(torch.cosine_similarity(question, answer, dim=0)))
    return found


def _answers(conversations: Conversations) -> list[str]:
    return [conversation[-1]["content"] for conversation in conversations]


@cache
def _base(folder: str) -> tuple[Any, Any]:
    from gshf_release.models.checkpoints import load_model, load_tokenizer

    return load_model(Path(folder), "rounded"), load_tokenizer(Path(folder))


@cache
def _encoder() -> tuple[Any, Any]:
    from transformers import AutoModel

    from gshf_release import recipe as recipes
    from gshf_release.models.checkpoints import load_tokenizer, locate

    contrasts = recipes.load("stand-in").reward.contrasts
    folder = locate(contrasts.base, sha256=contrasts.sha256)
    return AutoModel.from_pretrained(folder).eval(), load_tokenizer(folder)
