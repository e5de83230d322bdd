"""One number a conversation, the same alone and in a batch. FP32 on the CPU."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gshf_release.data.records import Message
from gshf_release.errors import CheckpointError, EngineError
from gshf_release.rewards.sequence_classification import SequenceClassificationReward

CONVERSATIONS: list[list[Message]] = [
    [
        Message(role="user", content="why is gold good" + " and read" * number),
        Message(role="assistant", content="the cat sat on a mat " * (number % 4 + 1)),
    ]
    for number in range(9)
]


def scorer(folder: Path, batch: int) -> SequenceClassificationReward:
    return SequenceClassificationReward(folder, precision="fp32", device="cpu", batch=batch)


def test_alone_and_in_a_batch_are_the_same(tiny_folder: Path) -> None:
    alone = scorer(tiny_folder / "reward", 1).score(CONVERSATIONS)
    together = scorer(tiny_folder / "reward", 8).score(CONVERSATIONS)
    assert alone.dtype == np.float32
    assert alone.shape == (9,)
    assert np.abs(alone - together).max() < 1e-5
    assert np.ptp(alone) > 1e-3


def test_the_reward_is_the_logit_at_the_last_token(tiny_folder: Path, tokenizer: Any) -> None:
    model = scorer(tiny_folder / "reward", 1)
    ids = tokenizer.apply_chat_template(CONVERSATIONS[3], tokenize=True, return_dict=False)
    with torch.inference_mode():
        hidden = model.model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        expected = float(model.model.score(hidden))
    assert float(model.score([CONVERSATIONS[3]])[0]) == pytest.approx(expected, abs=1e-5)


def test_no_conversations_have_no_rewards(tiny_folder: Path) -> None:
    assert scorer(tiny_folder / "reward", 4).score([]).shape == (0,)


def test_a_checkpoint_without_a_padding_token_can_be_batched(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(tiny_folder / "reward", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["pad_token_id"] = None
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    expected = scorer(tiny_folder / "reward", 8).score(CONVERSATIONS)
    assert np.abs(scorer(folder, 8).score(CONVERSATIONS) - expected).max() < 1e-5


def test_a_classifier_of_three_labels_is_no_reward_model(tiny_folder: Path, tmp_path: Path) -> None:
    from transformers import MistralForSequenceClassification

    from tests import tiny

    config = tiny.model().config
    config.num_labels = 3
    MistralForSequenceClassification(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises((EngineError, CheckpointError)) as caught:
        scorer(tmp_path, 1)
    assert "\n" not in str(caught.value)


class LookedError(Exception):
    """Ends a forward pass that was only to be looked at."""


@pytest.mark.parametrize("packed", [True, False])
def test_inputs_go_to_the_model_s_own_device(packed: bool, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads that compute batches side by side know no other "cuda" than the first one."""
    monkeypatch.setattr("gshf_release.models.packing.can_pack", lambda *given: packed)
    reward = scorer(tiny_folder / "reward", 8)
    reward.model.to("meta")
    seen: set[str] = set()

    def look(module: Any, arguments: Any, inputs: dict[str, Any]) -> None:
        seen.update(value.device.type for value in inputs.values() if isinstance(value, torch.Tensor))
        raise LookedError

    reward.model.base_model.register_forward_pre_hook(look, with_kwargs=True)
    with pytest.raises(LookedError):
        reward.score(CONVERSATIONS)
    assert seen == {"meta"}
