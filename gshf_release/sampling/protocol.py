"""Define the protocol of every sampling engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gshf_release.data.records import FinishReason
from gshf_release.errors import EngineError

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Decoding:
    """Says how a response is drawn. Temperature 0 is greedy."""

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
    prompt_id: str = ""
    """What an error calls the prompt; it decides nothing."""

    @property
    def longest(self) -> int:
        """The tokens that the prompt needs with the longest answer it may get."""
        return len(self.prompt_ids) + self.decoding.max_new_tokens


@dataclass(frozen=True, slots=True)
class Completion:
    """One response: its ids end with an EOS id if and only if `finish_reason` is `stop`."""

    ids: list[int]
    finish_reason: FinishReason


class SamplingEngine(Protocol):
    """Turns requests into completions, in the same order."""

    stops: list[int]
    """The ids that end a response."""
    context_tokens: int | None
    """The longest prompt with its answer that the model reads; None if it does not say."""

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request; `progress(done, total, unit)` is called as they finish."""
        ...

    def close(self) -> None:
        """Give back what the engine holds beyond this process; nothing else may be called afterwards."""
        ...


def fits(request: Request, context_tokens: int | None) -> bool:
    """Return whether a prompt and the longest answer it may get fit a model's context."""
    return context_tokens is None or request.longest <= context_tokens


def require_fitting(requests: Sequence[Request], context_tokens: int | None) -> None:
    """Refuse what an engine could only answer in part.

    Raises:
        EngineError: A prompt is empty, or a prompt and its answer do not fit the model's context; names the first of them.
    """
    for request in requests:
        name = f"The prompt {request.prompt_id}" if request.prompt_id else "A prompt"
        if not request.prompt_ids:
            raise EngineError(f"{name} has no token.")
        if not fits(request, context_tokens):
            raise EngineError(
                f"{name} with its answer needs {request.longest} tokens; the model's context is {context_tokens}.",
                hint=f"Its own length is {len(request.prompt_ids)}: lower max_new_tokens, or leave this prompt out.",
            )
