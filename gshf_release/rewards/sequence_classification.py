"""A reward model that is a Hugging Face sequence-classification checkpoint with one logit.

It reads messages in its own tokenizer and template, never in the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from gshf_release.batches import by_length, in_batches
from gshf_release.checkpoints import Precision, load_model, load_tokenizer
from gshf_release.errors import EngineError
from gshf_release.records import Message
from gshf_release.rendering import ConversationRenderer
from gshf_release.rewards import Inference


class SequenceClassificationReward:
    """Length-sorted batches, right padding; the same score alone or in a batch, up to rounding."""

    def __init__(self, checkpoint: Path, *, precision: Precision, device: str, batch: int, workers: int = 1) -> None:
        self.model = load_model(checkpoint, precision, device, head="reward")
        self.tokenizer = load_tokenizer(checkpoint)
        self.renderer = ConversationRenderer(self.tokenizer)
        self.batch = batch
        self.workers = workers
        self.device = device
        self.configured_padding: int | None = self.model.config.get_text_config().pad_token_id
        if self.model.num_labels != 1:
            raise EngineError(f"{checkpoint} has {self.model.num_labels} labels; a reward model has one logit.")

    @classmethod
    def open(cls, checkpoint: Path, how: Inference) -> Self:
        """Load a checkpoint."""
        return cls(checkpoint, precision=how.precision, device=how.device, batch=how.batch, workers=how.workers)

    @property
    def folded(self) -> int:
        """How many conversations had their system turn folded into the first user turn so far."""
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
        padding = self._padding(ids)
        rewards = np.zeros(len(ids), dtype=np.float32)
        batches = by_length([len(row) for row in ids], self.batch, self.workers)
        for chosen, values in in_batches(
            lambda chosen: self._score([ids[i] for i in chosen], padding), batches, self.workers
        ):
            rewards[chosen] = values
        return rewards

    def _padding(self, rows: Sequence[Sequence[int]]) -> int:
        """Return the id that fills short rows, and tell the model: it reads the logit at the last token that is another one.

        A checkpoint that names its padding was trained with that rule, so it is kept, even where padding is EOS and the logit
        is therefore that of the token before EOS. One that names none was trained to be read at the very last token: any id
        that ends no row will do. (Taking EOS there, as is common, moves the logit by one token whenever a batch is padded.)
        """
        if self.configured_padding is not None:
            return self.configured_padding
        last = {row[-1] for row in rows if row}
        padding = next(token for token in range(len(last) + 1) if token not in last)
        self.model.config.get_text_config().pad_token_id = padding
        return padding

    def _score(self, rows: Sequence[Sequence[int]], padding: int) -> npt.NDArray[np.float32]:
        """Return the logits of one padded batch."""
        import torch

        batch = torch.full((len(rows), max(map(len, rows))), padding, dtype=torch.long)
        mask = torch.zeros_like(batch)
        for number, row in enumerate(rows):
            batch[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        with torch.inference_mode():
            output = self.model(input_ids=batch.to(self.device), attention_mask=mask.to(self.device))
        values: npt.NDArray[np.float32] = output.logits[:, 0].float().cpu().numpy()
        return values
