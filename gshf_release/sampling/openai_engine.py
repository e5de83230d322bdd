"""Sampling from a server that speaks OpenAI's completions with token ids: ids in, ids out, as vLLM's server gives them.

The server holds the weights, so it is asked which ones: only a server that says it serves this very checkpoint is sampled from.
A server that answers with text alone is refused, because tokenizing the text again may give other ids than were drawn.
Arithmetic (`inference_precision`) and batching are the server's own affair; equal seeds give equal responses as far as it
promises that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gshf_release.errors import AnswerError, EngineError
from gshf_release.models.chat_tokenizer import stop_ids
from gshf_release.models.checkpoints import context_tokens, load_generation_config, load_tokenizer
from gshf_release.recipe.profile import Profile, Server
from gshf_release.sampling.protocol import Completion, Progress, Request, require_fitting
from gshf_release.sampling.vllm_rope import require_equal_frequencies
from gshf_release.serving.openai_client import ChatClient, concurrently

PLAIN = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0, "min_tokens": 0}
"""Said with every request: a server takes what is left open from the checkpoint's own generation config."""


class OpenAIEngine:
    """One model of one server, with at most `server.concurrent_requests` responses under way."""

    def __init__(self, checkpoint: Path, server: Server) -> None:
        """Ask the server what it serves.

        Raises:
            EngineError: The profile names no server, or the server does not serve this checkpoint.
            NetworkError: The server cannot be reached.
        """
        self._client = ChatClient(server)
        self._limit = server.concurrent_requests
        self.stops = stop_ids(load_tokenizer(checkpoint), load_generation_config(checkpoint))
        served = _served(self._client, checkpoint)
        self.model = str(served["id"])
        require_equal_frequencies(checkpoint, self._client.root, served.get("max_model_len"))
        lengths = [served.get("max_model_len"), context_tokens(checkpoint)]
        self.context_tokens: int | None = min((int(length) for length in lengths if length), default=None)

    @classmethod
    def open(cls, checkpoint: Path, profile: Profile) -> OpenAIEngine:
        """Return the engine on a checkpoint at the profile's server.

        Raises:
            EngineError: As the constructor.
            NetworkError: Likewise.
        """
        return cls(checkpoint, profile.server)

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request.

        Raises:
            EngineError: A prompt and its answer do not fit the context, or the server refuses a request or gives no token ids.
            AnswerError: The server answered with something else than a completion of this prompt.
            NetworkError: It failed at every try.
            Interrupted: The process was asked to stop.
        """
        require_fitting(requests, self.context_tokens)
        done = 0

        def finished(index: int, completion: Completion) -> None:
            nonlocal done
            done += 1
            progress(done, len(requests), "responses")

        return concurrently(self._complete, requests, self._limit, finished)

    def close(self) -> None:
        """The server is not ours to end."""

    def _complete(self, request: Request) -> Completion:
        answer = self._client.send("POST", "/completions", json.dumps(self._body(request)).encode())
        try:
            choice = json.loads(answer)["choices"][0]
            ids, reason, prompt = choice.get("token_ids"), choice.get("finish_reason"), choice.get("prompt_token_ids")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise AnswerError(f"{self._client.root} answered with something that is no completion.") from None
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise EngineError(
                f"{self._client.root} gives no token ids, and text tokenized again may have other ids than were drawn.",
                hint="Use a server that knows return_token_ids, such as vLLM, or set engine to transformers or vllm.",
            )
        if prompt is not None and prompt != request.prompt_ids:
            name = f"the prompt {request.prompt_id}" if request.prompt_id else "a prompt"
            raise AnswerError(f"{self._client.root} read {name} as other token ids than it was sent.")
        return self._checked(ids, reason, request)

    def _checked(self, ids: list[int], reason: object, request: Request) -> Completion:
        """Return the response; it keeps what the protocol promises, whatever the server says."""
        limit = request.decoding.max_new_tokens
        inner = ids[:-1] if reason == "stop" else ids
        if 1 <= len(ids) <= limit and not set(inner) & set(self.stops):
            if reason == "stop" and ids[-1] in self.stops:
                return Completion(ids, "stop")
            if reason == "length" and len(ids) == limit:
                return Completion(ids, "length")
        raise AnswerError(
            f"{self._client.root} ended a response with {reason!r} after {len(ids)} of {limit} tokens,"
            f" {'with' if ids and ids[-1] in self.stops else 'without'} an end token last."
        )

    def _body(self, request: Request) -> dict[str, Any]:
        decoding = request.decoding
        return PLAIN | {
            "model": self.model,
            "prompt": request.prompt_ids,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": decoding.top_k,
            "max_tokens": decoding.max_new_tokens,
            "seed": request.seed,
            "stop_token_ids": self.stops,
            "return_token_ids": True,
        }


def _served(client: ChatClient, checkpoint: Path) -> dict[str, Any]:
    """Return the server's entry of the checkpoint; the folder is what tells one iteration's policy from another's."""
    try:
        found = [dict(entry) for entry in json.loads(client.send("GET", "/models"))["data"]]
        names = [str(entry["id"]) for entry in found]
    except (ValueError, KeyError, TypeError):
        raise AnswerError(f"{client.root}/models answered with no list of models.") from None
    wanted = checkpoint.resolve()
    for entry in found:
        root = entry.get("root") or entry["id"]
        if Path(str(root)).is_absolute() and Path(str(root)).resolve() == wanted:
            return entry
    raise EngineError(
        f"{client.root} does not serve {checkpoint}; it serves {', '.join(names) or 'nothing'}.",
        hint=f"Start it on that folder, for example: vllm serve {wanted}. Then run the same command again.",
    )
