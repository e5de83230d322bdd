"""A pairwise preference model: a language model that reads a prompt with two responses and says A or B.

The form is that of RLHFlow/pair-preference-model-LLaMA3-8B (its model card; arXiv 2405.07863): one user turn
`[CONTEXT] ... [RESPONSE A] ... [RESPONSE B] ...` in the model's own chat template, the logits of the tokens "A" and "B" where
the assistant begins, and the mean over both orders, which cancels a preference for a position. The card also strips BOS from
the rendered text; here the model's template decides.  # assumption: such a model is trained with its template as it is
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.models.chat_template import Today
from gshf_release.models.chat_tokenizer import ConversationRenderer, fold_system
from gshf_release.models.checkpoints import Precision, load_model, load_tokenizer
from gshf_release.models.logprobs import next_token_logits
from gshf_release.rewards import Duel, Inference, PairwiseModel

Key = tuple[str, int]
"""(prompt id, sample index)."""


class GenerativePreference:
    """P(a is better) = mean over both orders of softmax(logit of its letter, logit of the other letter)."""

    def __init__(
        self,
        checkpoint: Path,
        *,
        precision: Precision,
        device: str,
        batch: int,
        workers: int = 1,
        today: Today | None = None,
    ) -> None:
        self.model = load_model(checkpoint, precision, device)
        self.tokenizer = load_tokenizer(checkpoint)
        self.renderer = ConversationRenderer(self.tokenizer, today)
        if not self.renderer.has_template:
            raise EngineError(f"{checkpoint} has no chat template, so it cannot be asked to compare two responses.")
        self.letters = [_single_token(self.tokenizer, letter, checkpoint) for letter in ("A", "B")]
        self.batch = batch
        self.workers = workers

    @classmethod
    def open(cls, checkpoint: Path, how: Inference) -> Self:
        """Load a checkpoint."""
        return cls(
            checkpoint,
            precision=how.precision,
            device=how.device,
            batch=how.batch,
            workers=how.workers,
            today=how.today,
        )

    def prefer_all(self, duels: Sequence[Duel]) -> npt.NDArray[np.float32]:
        """Return the probability that `a` is better in each duel, float32 (n,).

        Raises:
            EngineError: A comparison is longer than the model reads.
        """
        if not duels:
            return np.zeros(0, dtype=np.float32)
        asked = [*duels, *(Duel(duel.prompt, duel.b, duel.a) for duel in duels)]
        ids = [self._ids(duel) for duel in asked]
        longest = max(map(len, ids))
        if self.limit is not None and longest > self.limit:
            raise EngineError(f"A comparison of {longest} tokens does not fit the pairwise model's {self.limit}.")
        logits = np.asarray(
            next_token_logits(self.model, ids, self.letters, batch=self.batch, workers=self.workers), dtype=np.float64
        )
        says_a = 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))
        forwards, backwards = says_a[: len(duels)], says_a[len(duels) :]
        return ((forwards + 1 - backwards) / 2).astype(np.float32)

    @property
    def limit(self) -> int | None:
        """The longest comparison that the model reads, in tokens."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def reads(self, duel: Duel) -> bool:
        """Return whether a comparison is short enough in both orders."""
        orders = (duel, Duel(duel.prompt, duel.b, duel.a))
        return self.limit is None or max(len(self._ids(order)) for order in orders) <= self.limit

    def _ids(self, duel: Duel) -> list[int]:
        return self.renderer.ids(question(duel), answer_follows=True)


def question(duel: Duel) -> list[Message]:
    """Return the one user turn that asks which response is better.

    Turns of the context follow each other as `<turn> user` and `<turn> assistant`, with the line breaks that the card's
    template gives when transformers renders it. A system turn becomes part of the first user turn: the format knows none.
    """
    turns = "".join(f"\n<turn> {turn['role']}\n {turn['content']}" for turn in fold_system(duel.prompt))
    text = f"[CONTEXT] \n{turns}\n [RESPONSE A] {duel.a} [RESPONSE B] {duel.b} \n"
    return [Message(role="user", content=text)]


def round_robin(
    model: PairwiseModel, prompts: Mapping[str, Sequence[Message]], responses: Mapping[Key, str]
) -> dict[Key, float]:
    """Return each response's mean probability of being preferred to the prompt's other responses; 0.5 if there is none.

    All n(n-1)/2 pairs are compared, so best against worst of these scores is the winner of the tournament against its last.

    Args:
        model: A pairwise model.
        prompts: `{prompt id: messages}`.
        responses: `{(prompt id, sample index): text}`.
    """
    rivals: dict[str, list[int]] = {}
    for prompt_id, index in responses:
        rivals.setdefault(prompt_id, []).append(index)
    pairs = [
        (prompt_id, one, other)
        for prompt_id, indices in rivals.items()
        for place, one in enumerate(indices)
        for other in indices[place + 1 :]
    ]
    duels = [
        Duel(prompts[prompt_id], responses[prompt_id, one], responses[prompt_id, other])
        for prompt_id, one, other in pairs
    ]
    won: dict[Key, list[float]] = {key: [] for key in responses}
    for (prompt_id, one, other), probability in zip(pairs, model.prefer_all(duels), strict=True):
        won[prompt_id, one].append(float(probability))
        won[prompt_id, other].append(1 - float(probability))
    return {key: float(np.mean(values)) if values else 0.5 for key, values in won.items()}


def against(
    model: PairwiseModel,
    prompts: Mapping[str, Sequence[Message]],
    responses: Mapping[Key, str],
    opponents: Mapping[str, str],
) -> dict[Key, float]:
    """Return each response's probability of being preferred to its prompt's opponent, `{prompt id: text}`.

    With one opponent for all policies, such as the base's greedy answer, the scores of different policies compare.
    """
    keys = list(responses)
    duels = [Duel(prompts[key[0]], responses[key], opponents[key[0]]) for key in keys]
    return {key: float(value) for key, value in zip(keys, model.prefer_all(duels), strict=True)}


def readable_rivals(
    model: PairwiseModel, prompts: Mapping[str, Sequence[Message]], responses: Mapping[Key, str]
) -> dict[Key, str]:
    """Return the responses that a complete round robin can be held among.

    Of two responses that together are too long for the model, the longer one leaves, so that every response that stays is
    compared with all the others. One whose only rivals left is kept where it could be read, and has no rival then.
    """
    kept = dict(responses)
    for prompt_id in dict.fromkeys(key[0] for key in responses):
        order = sorted((key for key in responses if key[0] == prompt_id), key=lambda key: (len(responses[key]), key))
        while len(order) > 1 and not _reads(
            model, Duel(prompts[prompt_id], responses[order[-2]], responses[order[-1]])
        ):
            del kept[order.pop()]
    return kept


def readable_against(
    model: PairwiseModel,
    prompts: Mapping[str, Sequence[Message]],
    responses: Mapping[Key, str],
    opponents: Mapping[str, str],
) -> dict[Key, str]:
    """Return the responses that the model can read beside their prompt's opponent."""
    return {
        key: text for key, text in responses.items() if _reads(model, Duel(prompts[key[0]], text, opponents[key[0]]))
    }


def _reads(model: PairwiseModel, duel: Duel) -> bool:
    reads = getattr(model, "reads", None)
    return reads is None or bool(reads(duel))


def _single_token(tokenizer: Any, letter: str, checkpoint: Path) -> int:
    ids = tokenizer.encode(letter, add_special_tokens=False)
    if len(ids) != 1:
        raise EngineError(
            f"The tokenizer of {checkpoint} has no single token for {letter!r}; a pairwise model needs one."
        )
    return int(ids[0])
