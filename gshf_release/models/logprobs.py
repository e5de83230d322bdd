"""Log-probabilities of responses, and how one policy differs from another along them.

All sums run over the completion's tokens only, never over the prompt or padding; units are nats.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from gshf_release.data.records import Sample
from gshf_release.models import packing
from gshf_release.models.batching import by_length, in_batches

KL_TO_BASE = "KL to base (Rao-Blackwellised)"
"""The metric's name in result cells; see `traces`."""


class Tokens(NamedTuple):
    """A prompt and a completion as ids."""

    prompt_ids: list[int]
    completion_ids: list[int]


class TraceValues(NamedTuple):
    """Token sums of one response (nats)."""

    logp_policy: float
    logp_base: float
    entropy: float
    kl: float
    kl_k3: float
    kl_rounding: float


class OffloadedModel:
    """A model that is on its device only while it computes, where several do not fit side by side."""

    def __init__(self, model: Any, device: str) -> None:
        import torch

        self.model, self.device = model, torch.device(device)

    def __call__(self, **inputs: Any) -> Any:
        """Bring the model, compute, take it away again."""
        try:
            return self.model.to(self.device)(**inputs)
        finally:
            self.model.to("cpu")


def k3(own: Any, other: Any, mask: Any) -> Any:
    """Return the k3 estimate of KL(own || other) per response: r - 1 - log r with r = p_other / p_own, summed over its tokens.

    Never negative, and of lower variance than k1 = -log r while the two policies are close (J. Schulman, "Approximating KL
    Divergence", 2020, joschu.net/blog/kl-approx.html). It is applied token by token, where it estimates the next-token KL; by
    the chain rule the sum along a response, sampled from `own` at temperature 1, estimates the KL of whole responses.

    Args:
        own: Log-probabilities of the sampled tokens under the policy that drew them, (batch, width), nats.
        other: The same tokens under the other policy, (batch, width).
        mask: 1 at the response's tokens, 0 elsewhere, (batch, width).
    """
    import torch

    log_ratio = other - own
    return (torch.expm1(log_ratio) - log_ratio).masked_fill(mask == 0, 0.0).sum(dim=1)


def best_of_n_kl(n: int, rounds: int = 1) -> float:
    """Return the largest KL (nats) from a policy to best-of-n of it: log N - (N - 1) / N with N = n ** rounds.

    arXiv 2405.07863 for one round; best of n, of the best of n, is best of n squared.
    """
    return rounds * math.log(n) - (1.0 - float(n) ** -rounds)


def completion_logps(
    model: Any, sequences: Sequence[Tokens], *, batch: int, workers: int = 1, autocast: bool = False
) -> list[float]:
    """Return the summed log-probability (nats) of each completion given its prompt.

    Args:
        model: A causal language model in evaluation mode.
        sequences: Prompt and completion ids; a completion must not be empty.
        batch: Sequences per forward pass; it does not change the result beyond rounding.
        workers: Batches computed side by side.
        autocast: Compute in BF16 over FP32 weights, as training does.
    """
    import torch

    rows = [entry.prompt_ids + entry.completion_ids for entry in sequences]
    lengths = [len(row) for row in rows]
    packed = packing.can_pack(model, max(lengths, default=0))
    sums = _packed_sums if packed else _padded_sums
    batches = packing.batches(rows, batch, workers, None) if packed else by_length(lengths, batch, workers)

    def compute(chosen: list[int]) -> list[float]:
        with torch.inference_mode(), _autocast(model, autocast):
            return sums(model, [sequences[index] for index in chosen])

    results = [0.0] * len(sequences)
    with packing.packed_attention(model) if packed else contextlib.nullcontext():
        for chosen, values in in_batches(compute, batches, workers):
            for index, value in zip(chosen, values, strict=True):
                results[index] = value
    return results


def _padded_sums(model: Any, rows: Sequence[Tokens]) -> list[float]:
    import torch

    logits, targets, mask = _completion_logits(model, rows)
    logps = _target_logps(torch.log_softmax(logits.float(), dim=-1), targets)
    values: list[float] = (logps * mask).sum(dim=1).tolist()
    return values


def _packed_sums(model: Any, rows: Sequence[Tokens]) -> list[float]:
    """Compute rows laid end to end; those that begin alike are neighbours."""
    import torch

    packed = packing.pack([row.prompt_ids + row.completion_ids for row in rows])
    before = [
        index
        for row, indices in zip(rows, packed.indices, strict=True)
        for index in indices[len(row.prompt_ids) - 1 : -1]
    ]
    kept = torch.tensor(before, device=model.device)
    logits = model(**packing.inputs(packed, model.device), logits_to_keep=kept, use_cache=False).logits[0]
    targets = torch.tensor([token for row in rows for token in row.completion_ids], device=model.device)
    logps = _target_logps(torch.log_softmax(logits.float(), dim=-1), targets)
    sums: list[float] = torch.stack(
        [part.sum() for part in logps.split([len(row.completion_ids) for row in rows])]
    ).tolist()
    return sums


def traces(
    policy: Any, base: Any, exact: Any, samples: Sequence[Sample], *, batch: int, workers: int = 1
) -> list[TraceValues]:
    """Return token statistics of responses that `policy` sampled at temperature 1.

    `kl` and `kl_rounding` sum, over the response's positions, the exact KL between the two next-token distributions: the
    Rao-Blackwellised estimator of KL(policy || base) (arXiv 2504.10637), unbiased for samples at temperature 1 and of lower
    variance than the log-ratio of the sampled tokens alone, k1 = logp_policy - logp_base.

    Args:
        policy: The sampling policy (BF16).
        base: The base model at the same precision.
        exact: The FP32 policy, of which `policy` is the BF16 cast.
        samples: Responses of `policy`.
        batch: Responses per forward pass.
        workers: Batches computed side by side.
    """
    import torch

    def compute(chosen: list[int]) -> list[TraceValues]:
        rows = [Tokens(samples[index].prompt_ids, samples[index].completion_ids) for index in chosen]
        with torch.inference_mode():
            return _trace_batch(policy, base, exact, rows)

    results: dict[int, TraceValues] = {}
    lengths = [len(sample.prompt_ids) + len(sample.completion_ids) for sample in samples]
    for chosen, values in in_batches(compute, by_length(lengths, batch, workers), workers):
        results.update(zip(chosen, values, strict=True))
    return [results[index] for index in range(len(samples))]


def next_token_logits(
    model: Any, prompts: Sequence[Sequence[int]], tokens: Sequence[int], *, batch: int, workers: int = 1
) -> list[list[float]]:
    """Return the logits of a few tokens as the continuation of each prompt, (prompts, tokens).

    Args:
        model: A causal language model in evaluation mode.
        prompts: Ids; none may be empty.
        tokens: The tokens asked about.
        batch: Prompts per forward pass; it does not change the result beyond rounding.
        workers: Batches computed side by side.
    """
    import torch

    def compute(chosen: list[int]) -> list[list[float]]:
        with torch.inference_mode():
            logits = _last_logits(model, [prompts[index] for index in chosen], keep=1)
            values: list[list[float]] = logits[:, -1, list(tokens)].float().tolist()
            return values

    results: list[list[float]] = [[] for _ in prompts]
    for chosen, values in in_batches(compute, by_length([len(prompt) for prompt in prompts], batch, workers), workers):
        for index, value in zip(chosen, values, strict=True):
            results[index] = value
    return results


def _trace_batch(policy: Any, base: Any, exact: Any, rows: Sequence[Tokens]) -> list[TraceValues]:
    import torch

    logits, targets, mask = _completion_logits(policy, rows)
    own = torch.log_softmax(logits.float(), dim=-1)
    other = torch.log_softmax(_completion_logits(base, rows)[0].float(), dim=-1)
    unrounded = torch.log_softmax(_completion_logits(exact, rows)[0].float(), dim=-1)
    drawn, drawn_by_base = _target_logps(own, targets), _target_logps(other, targets)
    columns = (
        drawn * mask,
        drawn_by_base * mask,
        -(own.exp() * own).sum(dim=-1) * mask,
        (own.exp() * (own - other)).sum(dim=-1) * mask,
        (unrounded.exp() * (unrounded - own)).sum(dim=-1) * mask,
    )
    logp_policy, logp_base, entropy, kl, kl_rounding = (column.sum(dim=1).tolist() for column in columns)
    kl_k3 = k3(drawn, drawn_by_base, mask).tolist()
    sums = zip(logp_policy, logp_base, entropy, kl, kl_k3, kl_rounding, strict=True)
    return [TraceValues(*values) for values in sums]


def _completion_logits(model: Any, rows: Sequence[Tokens]) -> tuple[Any, Any, Any]:
    """Return logits (batch, width, vocabulary), targets and mask (batch, width) of the completions, right-aligned."""
    import torch

    width = max(len(row.completion_ids) for row in rows)
    targets = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width))
    for number, row in enumerate(rows):
        targets[number, width - len(row.completion_ids) :] = torch.tensor(row.completion_ids)
        mask[number, width - len(row.completion_ids) :] = 1
    logits = _last_logits(model, [row.prompt_ids + row.completion_ids for row in rows], keep=width + 1)[:, :-1]
    return logits, targets.to(model.device), mask.to(model.device)


def _last_logits(model: Any, sequences: Sequence[Sequence[int]], *, keep: int) -> Any:
    """Return the logits after each of the last tokens, (batch, keep, vocabulary).

    Rows are padded on the left, so that they end together and only those positions need logits.
    """
    import torch

    longest = max(map(len, sequences))
    ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    attention = torch.zeros_like(ids)
    for number, sequence in enumerate(sequences):
        ids[number, longest - len(sequence) :] = torch.tensor(sequence)
        attention[number, longest - len(sequence) :] = 1
    positions = (attention.cumsum(dim=1) - 1).clamp(min=0)
    return model(
        input_ids=ids.to(model.device),
        attention_mask=attention.to(model.device),
        position_ids=positions.to(model.device),
        logits_to_keep=keep,
        use_cache=False,
    ).logits


def _target_logps(log_probabilities: Any, targets: Any) -> Any:
    """Return (batch, width) log-probabilities of the target ids."""
    return log_probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def _autocast(model: Any, enabled: bool) -> contextlib.AbstractContextManager[Any]:
    import torch

    if not enabled:
        return contextlib.nullcontext()
    return torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16)
