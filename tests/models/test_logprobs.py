"""Log-probabilities against hand calculation from raw logits; all in FP32 on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gshf_release.data.records import Sample
from gshf_release.models.logprobs import Tokens, completion_logps, traces
from tests import tiny

PROMPT = [3, 40, 41, 42, 5]
SEQUENCES = [
    Tokens(PROMPT, [70, 71, 2]),
    Tokens([3, 9], [80, 81, 82, 83, 84, 85, 86]),
    Tokens([3, 9, 10, 11, 12, 13, 14, 15, 16], [90]),
    Tokens([7], [2]),
    *(Tokens([3, 20 + number], [30 + number] * (number + 1)) for number in range(6)),
]


def next_token_logps(model: Any, ids: list[int]) -> torch.Tensor:
    """Return log p(. | ids), (vocabulary,), from one unpadded forward pass in double precision after the logits."""
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), dim=-1)


def by_hand(model: Any, sequence: Tokens) -> float:
    """Return the sum of log p(token | everything before), one forward pass a token."""
    return sum(
        float(next_token_logps(model, sequence.prompt_ids + sequence.completion_ids[:position])[token])
        for position, token in enumerate(sequence.completion_ids)
    )


def test_three_tokens_by_hand(policy: Any) -> None:
    (value,) = completion_logps(policy, SEQUENCES[:1], batch=1)
    assert value == pytest.approx(by_hand(policy, SEQUENCES[0]), abs=1e-4)


def test_batch_and_padding_do_not_matter(policy: Any) -> None:
    alone = completion_logps(policy, SEQUENCES, batch=1)
    assert completion_logps(policy, SEQUENCES, batch=8) == pytest.approx(alone, abs=1e-4)
    assert alone == pytest.approx([by_hand(policy, sequence) for sequence in SEQUENCES], abs=1e-4)


def test_order_of_sequences_is_kept(policy: Any) -> None:
    forwards = completion_logps(policy, SEQUENCES, batch=3)
    backwards = completion_logps(policy, SEQUENCES[::-1], batch=3)
    assert backwards[::-1] == pytest.approx(forwards, abs=1e-4)


def test_autocast_stays_near_fp32(policy: Any) -> None:
    exact = completion_logps(policy, SEQUENCES, batch=4)
    assert completion_logps(policy, SEQUENCES, batch=4, autocast=True) == pytest.approx(exact, rel=0.05)


def sample(prompt: list[int], completion: list[int]) -> Sample:
    return Sample("p", 0, "T=1", 1.0, prompt, completion, "", "stop", "f" * 64)


SAMPLES = [sample(*sequence) for sequence in SEQUENCES]


def test_equal_models_do_not_diverge(policy: Any) -> None:
    for value in traces(policy, policy, policy, SAMPLES, batch=4):
        assert (value.kl, value.kl_rounding) == (0.0, 0.0)
        assert value.logp_policy == value.logp_base


def test_traces_equal_brute_force_along_the_samples(policy: Any, one_thread: None) -> None:
    other = tiny.model(seed=5)
    for entry, value in zip(SAMPLES, traces(policy, other, other, SAMPLES, batch=4), strict=True):
        entropy = kl = rounding = 0.0
        for position in range(len(entry.completion_ids)):
            prefix = entry.prompt_ids + entry.completion_ids[:position]
            p, q = next_token_logps(policy, prefix), next_token_logps(other, prefix)
            entropy -= sum((p.exp() * p).tolist())
            kl += sum((p.exp() * (p - q)).tolist())
            rounding += sum((q.exp() * (q - p)).tolist())
        assert value.entropy == pytest.approx(entropy, rel=1e-4)
        assert value.kl == pytest.approx(kl, rel=1e-3)
        assert value.kl_rounding == pytest.approx(rounding, rel=1e-3)
        assert value.logp_policy == pytest.approx(
            by_hand(policy, Tokens(entry.prompt_ids, entry.completion_ids)), abs=1e-4
        )


def test_a_uniform_policy_has_the_entropy_of_its_vocabulary(one_thread: None) -> None:
    uniform = tiny.model()
    torch.nn.init.zeros_(uniform.lm_head.weight)
    (value,) = traces(uniform, uniform, uniform, SAMPLES[:1], batch=1)
    assert value.entropy == pytest.approx(3 * 6.238325, abs=1e-4)  # 3 tokens, log 512 each
    assert value.logp_policy == pytest.approx(-3 * 6.238325, abs=1e-4)


def test_rounding_to_bf16_costs_little_and_not_nothing(policy: Any, tiny_folder: Path) -> None:
    from gshf_release.models.checkpoints import load_model

    rounded = load_model(tiny_folder / "tiny", "bf16")
    for value in traces(rounded, rounded, policy, SAMPLES, batch=4):
        assert 0 < value.kl_rounding < 0.01 * 7
