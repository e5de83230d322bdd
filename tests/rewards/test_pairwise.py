"""A pairwise model says A or B about two responses; both orders are asked, so a liking for a position cancels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.rewards import Duel, PairwiseModel, pairwise
from gshf_release.rewards.pairwise import GenerativePreference, against, question, round_robin
from tests import tiny

PROMPT = [Message(role="user", content="why is tea good?")]


def judge(folder: Path, batch: int = 8) -> GenerativePreference:
    return GenerativePreference(folder / "tiny", precision="fp32", device="cpu", batch=batch)


def test_the_question_is_written_as_the_models_of_the_field_were_trained() -> None:
    turns = [Message(role="user", content="Hi"), Message(role="assistant", content="Yes?"), *PROMPT]
    assert question(Duel(turns, "aa", "bb")) == [
        {
            "role": "user",
            "content": "[CONTEXT] \n\n<turn> user\n Hi\n<turn> assistant\n Yes?\n<turn> user\n why is tea good?\n "
            "[RESPONSE A] aa [RESPONSE B] bb \n",
        }
    ]


def test_a_system_turn_becomes_part_of_the_first_user_turn() -> None:
    content = question(Duel([Message(role="system", content="be brief"), *PROMPT], "a", "b"))[0]["content"]
    assert "<turn> user\n be brief\n\nwhy is tea good?" in content
    assert "system" not in content


def preference(model: GenerativePreference, a: str, b: str) -> float:
    return float(model.prefer_all([Duel(PROMPT, a, b)])[0])


def test_the_preference_by_hand(tiny_folder: Path) -> None:
    model = judge(tiny_folder)
    letter_a, letter_b = (model.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "AB")

    def says_a(first: str, second: str) -> float:
        ids = model.renderer.ids(question(Duel(PROMPT, first, second)), answer_follows=True)
        with torch.inference_mode():
            logits = model.model(torch.tensor([ids])).logits[0, -1]
        return math.exp(logits[letter_a]) / (math.exp(logits[letter_a]) + math.exp(logits[letter_b]))

    expected = (says_a("the cat", "gold is good") + 1 - says_a("gold is good", "the cat")) / 2
    assert preference(model, "the cat", "gold is good") == pytest.approx(expected, abs=1e-6)


def test_swapping_the_responses_gives_the_complement(tiny_folder: Path) -> None:
    model = judge(tiny_folder)
    one, other = preference(model, "the cat", "gold"), preference(model, "gold", "the cat")
    assert one + other == pytest.approx(1, abs=1e-6)
    assert one != pytest.approx(0.5, abs=1e-6)


def test_a_response_against_itself_is_even(tiny_folder: Path) -> None:
    assert preference(judge(tiny_folder), "the cat", "the cat") == pytest.approx(0.5, abs=1e-7)


def test_batch_1_and_batch_8_agree(tiny_folder: Path) -> None:
    duels = [Duel(PROMPT, "the cat " * number, "gold is good " * (5 - number)) for number in range(1, 5)]
    alone, together = judge(tiny_folder, 1).prefer_all(duels), judge(tiny_folder, 8).prefer_all(duels)
    assert alone.dtype == np.float32
    assert np.abs(alone - together).max() < 1e-6


def test_no_duels_have_no_preferences(tiny_folder: Path) -> None:
    assert judge(tiny_folder).prefer_all([]).shape == (0,)


def test_a_comparison_that_is_too_long_is_one_line(tiny_folder: Path) -> None:
    with pytest.raises(EngineError, match="does not fit the pairwise model's 256"):
        preference(judge(tiny_folder), "the cat " * 200, "b")


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path, one_thread: None) -> None:
    tiny.retemplate(tiny.save(tmp_path / "tiny"), "")
    with pytest.raises(EngineError, match="has no chat template"):
        judge(tmp_path)


def test_a_tokenizer_without_a_token_for_a_letter_is_refused(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Split:
        chat_template = name_or_path = "{{ messages[0]['content'] }}"

        def get_chat_template(self) -> str:
            return self.chat_template

        def apply_chat_template(self, *args: object, **kwargs: object) -> str:
            return "text"

        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [7, 8]

    monkeypatch.setattr(pairwise, "load_tokenizer", lambda path: Split())
    with pytest.raises(EngineError, match="has no single token for 'A'"):
        judge(tiny_folder)


class Stronger:
    """Prefers the longer response, with the probability that their lengths give."""

    def prefer_all(self, duels: Sequence[Duel]) -> npt.NDArray[np.float32]:
        return np.asarray([len(a) / (len(a) + len(b)) for _, a, b in duels], dtype=np.float32)


def test_round_robin_by_hand() -> None:
    responses = {("p", 0): "a", ("p", 1): "aaa", ("p", 2): "aaaa", ("q", 0): "a"}
    found = round_robin(Stronger(), {"p": PROMPT, "q": PROMPT}, responses)
    assert found["p", 0] == pytest.approx((1 / 4 + 1 / 5) / 2)
    assert found["p", 1] == pytest.approx((3 / 4 + 3 / 7) / 2)
    assert found["p", 2] == pytest.approx((4 / 5 + 4 / 7) / 2)
    assert found["q", 0] == 0.5, "a response without rivals"


@given(st.lists(st.integers(1, 30), min_size=2, max_size=8))
@settings(max_examples=50, deadline=None)
def test_the_scores_of_a_round_robin_average_one_half_and_keep_the_order(lengths: list[int]) -> None:
    responses = {("p", index): "a" * length for index, length in enumerate(lengths)}
    found = round_robin(Stronger(), {"p": PROMPT}, responses)
    assert sum(found.values()) / len(found) == pytest.approx(0.5)
    best, worst = max(found, key=lambda key: found[key]), min(found, key=lambda key: found[key])
    assert len(responses[best]) == max(lengths)
    assert len(responses[worst]) == min(lengths)


def test_against_an_opponent_by_hand() -> None:
    found = against(Stronger(), {"p": PROMPT}, {("p", 0): "a", ("p", 1): "aaa"}, {"p": "a"})
    assert found == {("p", 0): pytest.approx(0.5), ("p", 1): pytest.approx(0.75)}


def test_both_are_pairwise_models(tiny_folder: Path) -> None:
    assert isinstance(judge(tiny_folder), PairwiseModel)
    assert isinstance(Stronger(), PairwiseModel)
