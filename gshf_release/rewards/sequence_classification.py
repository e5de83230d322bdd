"""A reward model that is a Hugging Face sequence-classification checkpoint with one logit.

It reads messages in its own tokenizer and template, never in the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gshf_release.batches import by_length, in_batches
from gshf_release.checkpoints import Precision, device_of, inference_precision, load_model, load_tokenizer
from gshf_release.errors import EngineError
from gshf_release.records import Message
from gshf_release.rendering import conversation_ids
from gshf_release.run.context import StageContext


class SequenceClassificationReward:
    """Length-sorted batches, right padding; the same score alone or in a batch, up to rounding."""

    def __init__(self, checkpoint: Path, *, precision: Precision, device: str, batch: int, workers: int = 1) -> None:
        self.model = load_model(checkpoint, precision, device, head="reward")
        self.tokenizer = load_tokenizer(checkpoint)
        self.batch = batch
        self.workers = workers
        self.device = device
        if self.model.config.get_text_config().pad_token_id is None:
            self.model.config.get_text_config().pad_token_id = self.padding
        if self.model.num_labels != 1:
            raise EngineError(f"{checkpoint} has {self.model.num_labels} labels; a reward model has one logit.")

    @property
    def padding(self) -> int:
        """The id that fills short rows."""
        configured = self.model.config.get_text_config().pad_token_id
        token = configured if configured is not None else self.tokenizer.pad_token_id
        return int(token if token is not None else self.tokenizer.eos_token_id)

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        """Return the logits, float32 (n,)."""
        ids = [conversation_ids(self.tokenizer, conversation) for conversation in conversations]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        longest = max(map(len, ids), default=0)
        if limit is not None and longest > limit:
            raise EngineError(f"A conversation of {longest} tokens does not fit the reward model's {limit}.")
        rewards = np.zeros(len(ids), dtype=np.float32)
        batches = by_length([len(row) for row in ids], self.batch)
        for chosen, values in in_batches(lambda chosen: self._score([ids[i] for i in chosen]), batches, self.workers):
            rewards[chosen] = values
        return rewards

    def _score(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return the logits of one padded batch."""
        import torch

        batch = torch.full((len(rows), max(map(len, rows))), self.padding, dtype=torch.long)
        mask = torch.zeros_like(batch)
        for number, row in enumerate(rows):
            batch[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        with torch.inference_mode():
            output = self.model(input_ids=batch.to(self.device), attention_mask=mask.to(self.device))
        values: npt.NDArray[np.float32] = output.logits[:, 0].float().cpu().numpy()
        return values


def open_scorer(context: StageContext, checkpoint: Path) -> SequenceClassificationReward:
    """Return a scorer as the profile wants it."""
    profile = context.profile
    device = device_of(profile.device)
    return SequenceClassificationReward(
        checkpoint,
        precision=inference_precision(profile.inference_precision, device),
        device=device,
        batch=profile.scoring_batch,
        workers=profile.concurrent_batches,
    )
