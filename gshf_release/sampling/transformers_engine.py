"""Sampling with transformers' `generate`, with a random stream of its own for every response.

`generate` draws from one global generator, so a response would depend on its batch. Here each request brings a seed: its
uniform numbers are drawn beforehand, and a logits processor turns each into a token by inverse-transform sampling. Requests of
different temperatures share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gshf_release.batches import by_length, in_batches
from gshf_release.checkpoints import Precision, device_of, inference_precision, load_model, load_tokenizer
from gshf_release.profile import Profile
from gshf_release.rendering import stop_ids
from gshf_release.sampling.protocol import Completion, Progress, Request, require_fitting


class TransformersEngine:
    """Static batches of at most `batch` responses, longest prompts first."""

    def __init__(self, checkpoint: Path, *, precision: Precision, device: str, batch: int, workers: int = 1) -> None:
        from transformers import GenerationConfig

        self.model = load_model(checkpoint, precision, device)
        tokenizer = load_tokenizer(checkpoint)
        self.stops = stop_ids(tokenizer, self.model.generation_config)
        # generate() fills what a request leaves open from the checkpoint's own config, such as a repetition penalty.
        self.model.generation_config = GenerationConfig()
        self.context_tokens: int | None = getattr(self.model.config, "max_position_embeddings", None)
        self.padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.stops[0]
        self.device = device
        self.batch = batch
        self.workers = workers

    @classmethod
    def open(cls, checkpoint: Path, profile: Profile) -> TransformersEngine:
        """Return the engine on a checkpoint as a profile wants it.

        Raises:
            CheckpointError: The weights cannot be read, or the device is not there.
        """
        device = device_of(profile.device)
        return cls(
            checkpoint,
            precision=inference_precision(profile.inference_precision, device),
            device=device,
            batch=profile.sampling_batch,
            workers=profile.concurrent_batches,
        )

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request.

        Raises:
            EngineError: A prompt and its answer do not fit the model's context.
        """
        require_fitting(requests, self.context_tokens)

        def compute(chosen: list[int]) -> list[Completion]:
            return self._generate_batch([requests[index] for index in chosen])

        results: dict[int, Completion] = {}
        batches = by_length([len(request.prompt_ids) for request in requests], self.batch, self.workers)
        for chosen, completions in in_batches(compute, batches, self.workers):
            results.update(zip(chosen, completions, strict=True))
            progress(len(results), len(requests), "responses")
        return [results[index] for index in range(len(requests))]

    def close(self) -> None:
        """Nothing is held beyond this process."""

    def _generate_batch(self, rows: Sequence[Request]) -> list[Completion]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        longest = max(len(row.prompt_ids) for row in rows)
        ids = torch.full((len(rows), longest), self.padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, longest - len(row.prompt_ids) :] = torch.tensor(row.prompt_ids)
            mask[number, longest - len(row.prompt_ids) :] = 1
        config = GenerationConfig(
            max_new_tokens=max(row.decoding.max_new_tokens for row in rows),
            do_sample=False,
            eos_token_id=self.stops,
            pad_token_id=self.padding,
        )
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=config,
                logits_processor=LogitsProcessorList([SeededSampling(rows, longest, self.device)]),
            )
        return [self._completion(tokens, row) for tokens, row in zip(output[:, longest:].tolist(), rows, strict=True)]

    def _completion(self, tokens: list[int], row: Request) -> Completion:
        tokens = tokens[: row.decoding.max_new_tokens]
        for position, token in enumerate(tokens):
            if token in self.stops:
                return Completion(tokens[: position + 1], "stop")
        return Completion(tokens, "length")


class SeededSampling:
    """A logits processor that leaves one token per row: the argmax, or the one the row's next uniform number picks.

    Inverse-transform sampling: the token i with F(i-1) <= u < F(i), where F is the cumulative distribution after temperature,
    top-k and top-p.
    """

    def __init__(self, rows: Sequence[Request], prompt_width: int, device: str) -> None:
        import torch

        self.prompt_width = prompt_width
        width = max(row.decoding.max_new_tokens for row in rows)
        draws = np.stack([np.random.Generator(np.random.Philox(row.seed)).random(width) for row in rows])
        self.uniform = torch.from_numpy(draws).to(device)
        self.temperature = torch.tensor([row.decoding.temperature for row in rows], device=device)
        self.top_p = torch.tensor([row.decoding.top_p for row in rows], device=device)
        self.top_k = [row.decoding.top_k for row in rows]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return scores (batch, vocabulary) that are 0 at the drawn token and -inf elsewhere."""
        import torch

        step = input_ids.shape[1] - self.prompt_width
        greedy = self.temperature == 0
        divisor = torch.where(greedy, 1.0, self.temperature).unsqueeze(1)
        probabilities = torch.softmax(scores.float() / divisor, dim=-1)
        cumulative = self._truncated(probabilities).cumsum(dim=-1, dtype=torch.float64)
        threshold = self.uniform[:, step : step + 1] * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, threshold, right=True).clamp(max=scores.shape[1] - 1)
        drawn = torch.where(greedy.unsqueeze(1), scores.argmax(dim=-1, keepdim=True), drawn)
        return torch.full_like(scores, float("-inf")).scatter_(1, drawn, 0.0)

    def _truncated(self, probabilities: Any) -> Any:
        """Return the distribution with everything outside top-k and top-p set to zero (not renormalised)."""
        import torch

        if not any(self.top_k) and bool((self.top_p == 1).all()):
            return probabilities
        ordered, indices = probabilities.sort(dim=-1, descending=True)
        keep = (ordered.cumsum(dim=-1, dtype=torch.float64) - ordered) < self.top_p.unsqueeze(1)
        ranks = torch.arange(ordered.shape[1], device=ordered.device)
        limits = torch.tensor([k or ordered.shape[1] for k in self.top_k], device=ordered.device)
        keep &= ranks < limits.unsqueeze(1)
        return torch.zeros_like(probabilities).scatter_(1, indices, torch.where(keep, ordered, 0.0))
