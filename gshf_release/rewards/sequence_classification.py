"""A reward model that is a Hugging Face sequence-classification checkpoint with one logit.

It reads messages in its own tokenizer and template, never in the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gshf_release.checkpoints import Precision, load_model, load_tokenizer
from gshf_release.errors import EngineError
from gshf_release.logprobs import by_length
from gshf_release.records import Message
from gshf_release.rendering import conversation_ids


class SequenceClassificationReward:
    """Length-sorted batches, right padding; the same score alone or in a batch, up to rounding."""

    def __init__(self, checkpoint: Path, *, precision: Precision, device: str, batch: int) -> None:
        self.model = load_model(checkpoint, precision, device, head="reward")
        self.tokenizer = load_tokenizer(checkpoint)
        self.batch = batch
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
        import torch

        ids = [conversation_ids(self.tokenizer, conversation) for conversation in conversations]
        rewards = np.zeros(len(ids), dtype=np.float32)
        with torch.inference_mode():
            for chosen in by_length([len(row) for row in ids], self.batch):
                width = max(len(ids[index]) for index in chosen)
                batch = torch.full((len(chosen), width), self.padding, dtype=torch.long)
                mask = torch.zeros_like(batch)
                for number, index in enumerate(chosen):
                    batch[number, : len(ids[index])] = torch.tensor(ids[index])
                    mask[number, : len(ids[index])] = 1
                output = self.model(input_ids=batch.to(self.device), attention_mask=mask.to(self.device))
                rewards[chosen] = output.logits[:, 0].float().cpu().numpy()
        return rewards
