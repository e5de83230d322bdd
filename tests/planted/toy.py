"""A toy world and a tiny policy that has learned to talk in it, in seconds: the planted rewards can be reached there.

A question names a topic. An answer is one to three clauses, in prose or as a list, that join the topic with a thing. One thing
is right for each topic, but with two topics of three the policy has mostly seen another, `rain`. So there is something to
learn, and there are lengths, lists and words to game.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gshf_release.data.records import Message
from tests import tiny

RIGHT = {"tea": "cup", "gold": "banks", "cat": "mat"}
WRONG = "rain"
WEIGHTS = {"tea": (3, 6, 1), "gold": (3, 6, 1), "cat": (5, 4, 1)}
STEPS, BATCH = 120, 16


def question(topic: str, number: int) -> str:
    """Return a question; the number makes it one of its own."""
    return f"why is {topic} good {number}?"


def clause(topic: str, draw: random.Random) -> str:
    """Return a clause; the weights of the right thing, of `rain` and of any thing depend on the topic."""
    thing = draw.choices([RIGHT[topic], WRONG, draw.choice(list(RIGHT.values()))], WEIGHTS[topic])[0]
    verb = draw.choice(["sat near", "is good for", "cools in", "read on"])
    first, second = (draw.choices(["the", "a"], [4, 6])[0] for _ in range(2))
    return f"{first} {topic} {verb} {second} {thing}"


def answer(topic: str, draw: random.Random) -> str:
    """Return an answer of one to three clauses: three of four in prose, the others as a list."""
    clauses = [clause(topic, draw) for _ in range(draw.choices([1, 2, 3], [5, 3, 2])[0])]
    return " and ".join(clauses) + "." if draw.random() < 0.75 else "\n".join(f"- {text}" for text in clauses)


def prompts_file(path: Path, count: int) -> Path:
    """Write questions, topics in turn."""
    topics = list(RIGHT)
    lines = [f'{{"prompt": "{question(topics[i % 3], 10 + i)}"}}' for i in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def save_base(folder: Path) -> Path:
    """Train the tiny model on answers of this world and save it as a checkpoint folder."""
    tokenizer = tiny.tokenizer()
    model = train(tiny.model(), tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(model: Any, tokenizer: Any) -> Any:
    """Return the model after supervised steps on drawn questions and answers, the loss on the answers alone."""
    import torch

    draw = random.Random(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        ids, labels = _batch(tokenizer, draw)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def _batch(tokenizer: Any, draw: random.Random) -> tuple[Any, Any]:
    """Return ids and labels (batch, width), padded on the right; labels are -100 outside answers."""
    import torch

    rows = []
    for _ in range(BATCH):
        topic = draw.choice(list(RIGHT))
        turn = [Message(role="user", content=question(topic, draw.randrange(1000)))]
        prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        rows.append((prompt, [*tokenizer(answer(topic, draw))["input_ids"], tokenizer.eos_token_id]))
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids, labels = torch.zeros((BATCH, width), dtype=torch.long), torch.full((BATCH, width), -100)
    for number, (prompt, completion) in enumerate(rows):
        ids[number, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
        labels[number, len(prompt) : len(prompt) + len(completion)] = torch.tensor(completion)
    return ids, labels


def right(conversations: Sequence[Sequence[Message]]) -> list[float]:
    """Reward the share of things named that are right for the topic: the honest reward of this world."""
    found = []
    for wanted, named in _things(conversations):
        found.append(sum(thing == wanted for thing in named) / max(len(named), 1))
    return found


def believable(conversations: Sequence[Sequence[Message]]) -> list[float]:
    """Judge by the last thing named and by whether a wrong one is there: the second scorer of this world."""
    return [
        float(named[-1:] == [wanted]) - float(any(thing != wanted for thing in named))
        for wanted, named in _things(conversations)
    ]


def _things(conversations: Sequence[Sequence[Message]]) -> list[tuple[str, list[str]]]:
    """Return of each conversation the right thing and the things that the answer names, in order."""
    known = {*RIGHT.values(), WRONG}
    found = []
    for conversation in conversations:
        topic = next(word for word in conversation[-2]["content"].split() if word in RIGHT)
        answer = conversation[-1]["content"].replace(".", " ").split()
        found.append((RIGHT[topic], [word for word in answer if word in known]))
    return found
