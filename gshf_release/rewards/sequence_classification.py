"""A reward model that is a Hugging Face sequence-classification checkpoint with one logit.

It reads messages in its own tokenizer and template, never in the policy's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.models import packing
from gshf_release.models.batching import by_length, in_batches
from gshf_release.models.chat_template import Today
from gshf_release.models.chat_template_checks import check_reward, template_place
from gshf_release.models.chat_tokenizer import ConversationRenderer
from gshf_release.models.checkpoints import Precision, load_model, load_tokenizer
from gshf_release.rewards import Inference

CPU_TOKENS = 2048
"""In a batch on a CPU at most: its products are as fast as they get with far fewer, and its caches hold no more."""


class SequenceClassificationReward:
    """The same score alone or in a batch, up to rounding.

    Causal models read batches of conversations that begin alike, laid end to end (see `packing`), others length-sorted batches
    padded on the right.
    """

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
        self.tokenizer = load_tokenizer(checkpoint)
        check_reward(self.tokenizer, template_place(checkpoint), today=today)
        self.model = load_model(checkpoint, precision, device, head="reward")
        self.renderer = ConversationRenderer(self.tokenizer, today)
        self.batch = batch
        self.workers = workers
        self.tokens = CPU_TOKENS if device == "cpu" else None
        self.configured_padding: int | None = self.model.config.get_text_config().pad_token_id
        if self.model.num_labels != 1:
            raise EngineError(f"{checkpoint} has {self.model.num_labels} labels; a reward model has one logit.")

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

    @property
    def folded(self) -> int:
        """Return how many conversations had their system turn folded into the first user turn so far."""
        return self.renderer.folded

    @property
    def limit(self) -> int | None:
        """The longest conversation that the model reads, in tokens."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def reads(self, conversation: Sequence[Message]) -> bool:
        """Return whether a conversation is short enough."""
        return self.limit is None or self.renderer.length(conversation) <= self.limit

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        """Return the logits, float32 (n,).

        Raises:
            CheckpointError: The model's template refuses a conversation.
            EngineError: A conversation is longer than the model reads.
        """
        ids = [self.renderer.ids(conversation) for conversation in conversations]
        longest = max(map(len, ids), default=0)
        if self.limit is not None and longest > self.limit:
            raise EngineError(f"A conversation of {longest} tokens does not fit the reward model's {self.limit}.")
        if packing.can_pack(self.model, longest):
            with packing.packed_attention(self.model):
                batches = packing.batches(ids, self.batch, self.workers, self.tokens)
                return self._in_batches(ids, batches, self._score_packed)
        self._choose_padding(ids)
        lengths = [len(row) for row in ids]
        return self._in_batches(ids, by_length(lengths, self.batch, self.workers, self.tokens), self._score_padded)

    def _in_batches(
        self,
        ids: Sequence[list[int]],
        batches: Iterable[list[int]],
        score: Callable[[list[list[int]]], npt.NDArray[np.float32]],
    ) -> npt.NDArray[np.float32]:
        rewards = np.zeros(len(ids), dtype=np.float32)
        for chosen, values in in_batches(lambda chosen: score([ids[i] for i in chosen]), batches, self.workers):
            rewards[chosen] = values
        return rewards

    def _score_packed(self, rows: list[list[int]]) -> npt.NDArray[np.float32]:
        """Return the logits of one batch of rows laid end to end."""
        import torch

        packed = packing.pack(rows)
        read = [indices[self._last(row)] for row, indices in zip(rows, packed.indices, strict=True)]
        with torch.inference_mode():
            return _numbers(self.model.score(packing.hidden_states(self.model, packed)[read]))

    def _last(self, row: Sequence[int]) -> int:
        """Return where a row is read: at its last token that is no padding by the checkpoint's own word.

        A checkpoint that names its padding was trained with that rule, so it is kept, even where padding is EOS and the logit
        is therefore that of the token before EOS. One that names none was trained to be read at the very last token. (Taking
        EOS for its padding, as is common, moves the logit by one token whenever a batch is padded.)
        """
        return next((at for at in range(len(row) - 1, 0, -1) if row[at] != self.configured_padding), 0)

    def _choose_padding(self, rows: Sequence[Sequence[int]]) -> None:
        """Tell the model any id that ends no row where a checkpoint names no padding; see `_last`."""
        if self.configured_padding is None:
            last = {row[-1] for row in rows if row}
            free = next(token for token in range(len(last) + 1) if token not in last)
            self.model.config.get_text_config().pad_token_id = free

    def _score_padded(self, rows: list[list[int]]) -> npt.NDArray[np.float32]:
        """Return the logits of one padded batch."""
        import torch

        padding = self.model.config.get_text_config().pad_token_id
        batch = torch.full((len(rows), max(map(len, rows))), padding, dtype=torch.long)
        mask = torch.zeros_like(batch)
        for number, row in enumerate(rows):
            batch[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        with torch.inference_mode():
            device = self.model.device  # a thread's own "cuda" is the first one, whatever the process chose
            return _numbers(self.model(input_ids=batch.to(device), attention_mask=mask.to(device)).logits)


def _numbers(logits: Any) -> npt.NDArray[np.float32]:
    """Return logits (n, 1) as rewards."""
    rewards: npt.NDArray[np.float32] = logits[:, 0].float().cpu().numpy()
    return rewards
