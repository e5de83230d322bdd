"""Sampling with transformers' models in this process, with a random stream of its own for every response.

Each request brings a seed: its uniform numbers are drawn beforehand, and each becomes a token by inverse-transform sampling, so
a response does not depend on what shares its batch. Requests of different temperatures and limits share one.

transformers batches continuously too (`generate_batch`, read in 5.23), but draws all rows from the one global generator, knows
no greedy row among sampled ones, and without FlashAttention attends from every row to the keys of all rows at once, behind a
mask: it cannot keep the promise of this engine, and on a CPU its attention grows with the square of the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from gshf_release.models.batching import in_batches
from gshf_release.models.chat_tokenizer import stop_ids
from gshf_release.models.checkpoints import (
    Precision,
    device_of,
    inference_precision,
    load_model,
    load_tokenizer,
    sampled_tokens,
)
from gshf_release.recipe.profile import Profile
from gshf_release.run import interrupt
from gshf_release.sampling.greedy import LikeliestToken
from gshf_release.sampling.protocol import Completion, Progress, Request, require_fitting


class TransformersEngine:
    """`workers` continuous batches side by side, each of at most `batch` responses and `tokens` tokens.

    Which batch a response belongs to follows from the requests alone, not from which batch has a free place first: the same
    requests give the same bits.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        precision: Precision,
        device: str,
        batch: int,
        tokens: int | None = None,
        workers: int = 1,
    ) -> None:
        from gshf_release.sampling.continuous import require_plain_cache

        self.model = load_model(checkpoint, precision, device)
        require_plain_cache(self.model.config)
        self.likeliest = LikeliestToken(self.model)
        self.stops = stop_ids(load_tokenizer(checkpoint), self.model.generation_config)
        self.context_tokens: int | None = sampled_tokens(self.model.config.to_dict())
        self.batch = batch
        self.tokens = tokens
        self.workers = workers

    @classmethod
    def open(cls, checkpoint: Path, profile: Profile) -> TransformersEngine:
        """Return the engine on a checkpoint as a profile wants it.

        Raises:
            CheckpointError: The weights cannot be read, or the device is not there.
            EngineError: The model is of a kind that this engine cannot run.
        """
        device = device_of(profile.device)
        return cls(
            checkpoint,
            precision=inference_precision(profile.inference_precision, device),
            device=device,
            batch=profile.sampling_batch,
            tokens=profile.sampling_tokens,
            workers=profile.concurrent_batches,
        )

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request.

        Raises:
            EngineError: A prompt and its answer do not fit the model's context.
            Interrupted: The process was asked to stop; it is heard between two calls of the model.
        """
        from gshf_release.sampling.continuous import deal_to_workers, group_by_prompt

        require_fitting(requests, self.context_tokens)
        parts = [part for part in deal_to_workers(group_by_prompt(requests), self.workers) if part]
        heard = _BatchProgress(len(requests), progress)

        def compute(chosen: list[int]) -> dict[int, Completion]:
            return self._answer(requests, parts[chosen[0]], heard)

        results: dict[int, Completion] = {}
        for _, found in in_batches(compute, ([number] for number in range(len(parts))), self.workers):
            results.update(found)
        return [results[index] for index in range(len(requests))]

    def close(self) -> None:
        """Nothing is held beyond this process."""

    def _answer(
        self, requests: Sequence[Request], groups: list[list[int]], heard: _BatchProgress
    ) -> dict[int, Completion]:
        """Return the completions of one batch, by position."""
        from gshf_release.sampling.continuous import ContinuousBatch

        batch = ContinuousBatch(
            self.model,
            requests,
            groups,
            stops=self.stops,
            slots=self.batch,
            tokens=self.tokens,
            likeliest=self.likeliest,
        )
        found: dict[int, Completion] = {}
        try:
            for finished in batch.run(interrupt.check):
                found.update(finished)
                heard.add(len(finished))
                if heard.failed.is_set():  # the other batch's error is the one to raise
                    break
        except BaseException:
            heard.failed.set()
            raise
        return found


class _BatchProgress:
    """Says what batches in several threads tell: how many responses are finished, and that one of them has failed."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.done, self.total, self.progress = 0, total, progress
        self.lock, self.failed = threading.Lock(), threading.Event()

    def add(self, count: int) -> None:
        if count:
            with self.lock:
                self.done += count
                self.progress(self.done, self.total, "responses")
