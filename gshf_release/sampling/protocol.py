"""What every sampling engine promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gshf_release.errors import EngineError
from gshf_release.records import FinishReason

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a response is drawn. Temperature 0 is greedy."""

    temperature: float
    max_new_tokens: int
    top_p: float = 1.0
    top_k: int = 0

    @property
    def label(self) -> str:
        """`greedy`, or `T=0.7`."""
        return "greedy" if self.temperature == 0 else f"T={self.temperature:g}"


@dataclass(frozen=True, slots=True)
class Request:
    """One response wanted. The seed belongs to the request, so sharding and batching do not change the draw."""

    prompt_ids: list[int]
    decoding: Decoding
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One response: its ids end with an EOS id if and only if `finish_reason` is `stop`."""

    ids: list[int]
    finish_reason: FinishReason


class SamplingEngine(Protocol):
    """Turns requests into completions, in the same order."""

    stops: list[int]
    """The ids that end a response."""

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request; `progress(done, total, unit)` is called as they finish."""
        ...

    def close(self) -> None:
        """Give back what the engine holds beyond this process; nothing else may be called afterwards."""
        ...


def require_fitting(requests: Sequence[Request], context_tokens: int | None) -> None:
    """Refuse what an engine could only answer in part.

    Raises:
        EngineError: A prompt is empty, or a prompt and its answer do not fit the model's context.
    """
    if any(not request.prompt_ids for request in requests):
        raise EngineError("A prompt has no token.")
    longest = max((len(request.prompt_ids) + request.decoding.max_new_tokens for request in requests), default=0)
    if context_tokens is not None and longest > context_tokens:
        raise EngineError(f"A prompt with its answer needs {longest} tokens; the model's context is {context_tokens}.")
