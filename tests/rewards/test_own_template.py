"""Trap 17: a reward model reads conversations in its own tokenizer and template, at the right token, in any batch."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gshf_release.data.records import Message
from gshf_release.errors import CheckpointError
from gshf_release.models.chat_tokenizer import ConversationRenderer, fold_system
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from tests import tiny

SYSTEM = Message(role="system", content="be brief")
ASKED = Message(role="user", content="why is tea good?")
ANSWERED = Message(role="assistant", content="the cat sat on a mat")
EOS, UNK = 2, 0


def conversations() -> list[list[Message]]:
    return [
        [
            Message(role="user", content="why is gold good" + " and read" * number),
            Message(role="assistant", content="tea cools in the cup " * (number % 4 + 1)),
        ]
        for number in range(9)
    ]


def scorer(folder: Path, batch: int = 1) -> SequenceClassificationReward:
    return SequenceClassificationReward(folder, precision="fp32", device="cpu", batch=batch)


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.fixture
def strict(tmp_path: Path, one_thread: None) -> Path:
    """A reward model with a template like Mistral-Instruct's, which ends with EOS."""
    return tiny.retemplate(tiny.save_reward_model(tmp_path / "strict"), tiny.STRICT_TEMPLATE)


def logit_at_the_end(model: SequenceClassificationReward, ids: list[int]) -> float:
    """Return the head's output at the last token of one unpadded row, without the library's search for that token."""
    with torch.inference_mode():
        return float(model.model.score(model.model.model(torch.tensor([ids])).last_hidden_state[0, -1]))


def test_the_template_is_the_reward_models_own(strict: Path, tiny_folder: Path) -> None:
    assert scorer(strict).renderer.text([ASKED, ANSWERED]) == (
        "<s>[INST] why is tea good? [/INST]the cat sat on a mat</s>"
    )
    assert scorer(tiny_folder / "reward").renderer.text([ASKED, ANSWERED]) == (
        "<|user|>\nwhy is tea good?</s>\n<|assistant|>\nthe cat sat on a mat</s>\n"
    )


def test_a_system_turn_that_the_template_refuses_is_folded_into_the_first_user_turn_and_counted(strict: Path) -> None:
    model = scorer(strict)
    folded = [Message(role="user", content="be brief\n\nwhy is tea good?"), ANSWERED]
    assert model.renderer.text([SYSTEM, ASKED, ANSWERED]) == (
        "<s>[INST] be brief\n\nwhy is tea good? [/INST]the cat sat on a mat</s>"
    )
    assert model.score([[SYSTEM, ASKED, ANSWERED]]) == pytest.approx(model.score([folded]))
    assert model.folded == 2


def test_a_system_turn_that_the_template_drops_without_a_word_is_folded_too(tmp_path: Path, one_thread: None) -> None:
    silent = "{% for message in messages if message['role'] != 'system' %}{{ message['content'] }}</s>{% endfor %}"
    model = scorer(tiny.retemplate(tiny.save_reward_model(tmp_path / "silent"), silent))
    assert model.renderer.text([SYSTEM, ASKED, ANSWERED]).startswith("be brief\n\nwhy is tea good?</s>")


def test_a_system_turn_that_the_template_knows_stays(tiny_folder: Path) -> None:
    model = scorer(tiny_folder / "reward")
    assert model.renderer.text([SYSTEM, ASKED, ANSWERED]).startswith("<|system|>\nbe brief</s>\n<|user|>\n")
    assert model.folded == 0


@pytest.mark.parametrize("turns", [[ASKED, ASKED, ANSWERED], [ANSWERED], [SYSTEM, ANSWERED]])
def test_a_conversation_that_the_template_refuses_even_so_is_one_line(strict: Path, turns: list[Message]) -> None:
    with pytest.raises(CheckpointError, match=r"refuses a conversation of the turns .*alternate") as caught:
        scorer(strict).score([turns])
    assert "\n" not in str(caught.value)
    assert ", ".join(turn["role"] for turn in turns) in str(caught.value)


def test_an_empty_system_turn_adds_nothing() -> None:
    assert fold_system([Message(role="system", content=""), ASKED]) == [ASKED]


@pytest.mark.parametrize(("side", "padding"), itertools.product(["left", "right"], [None, UNK, EOS, 300]))
def test_batch_1_and_batch_8_agree_for_any_padding(strict: Path, side: str, padding: int | None) -> None:
    configure(strict, pad_token_id=padding)
    tiny.retemplate(strict, tiny.STRICT_TEMPLATE, padding_side=side, pad_token=None)
    alone, together = (scorer(strict, batch).score(conversations()) for batch in (1, 8))
    assert np.abs(alone - together).max() < 1e-5
    assert np.ptp(alone) > 1e-3


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("token", [None, "</s>", "<unk>"])
def test_without_a_padding_id_in_the_config_the_logit_is_that_of_the_last_token(
    strict: Path, batch: int, token: str | None
) -> None:
    configure(strict, pad_token_id=None)
    tiny.retemplate(strict, tiny.STRICT_TEMPLATE, pad_token=token)
    model = scorer(strict, batch)
    rows = [model.renderer.ids(conversation) for conversation in conversations()]
    assert {row[-1] for row in rows} == {EOS}
    expected = [logit_at_the_end(model, row) for row in rows]
    assert model.score(conversations()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_config_that_pads_with_eos_is_read_before_it_as_it_was_trained(strict: Path, batch: int) -> None:
    configure(strict, pad_token_id=EOS)
    model = scorer(strict, batch)
    rows = [model.renderer.ids(conversation) for conversation in conversations()]
    expected = [logit_at_the_end(model, row[:-1]) for row in rows]
    assert model.score(conversations()) == pytest.approx(expected, abs=1e-5)


def test_the_order_of_conversations_is_kept(strict: Path) -> None:
    model = scorer(strict, 4)
    forwards, backwards = model.score(conversations()), model.score(conversations()[::-1])
    assert forwards == pytest.approx(backwards[::-1], abs=1e-5)


def test_the_ids_are_those_of_transformers_chat_template(tiny_folder: Path, tokenizer: Any) -> None:
    turns = [SYSTEM, ASKED, ANSWERED]
    expected = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert ConversationRenderer(tokenizer).ids(turns) == expected
