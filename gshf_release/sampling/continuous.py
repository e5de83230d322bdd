"""Continuous batching: responses leave a batch as they end, and others take their places.

A prompt is computed once for all its responses: their rows start from copies of its keys and values. Prompts come longest
first, so that those computed together pad little and memory fails early; how long an answer gets is not known beforehand and
decides nothing.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from gshf_release.errors import EngineError
from gshf_release.sampling.drawing import draw_tokens
from gshf_release.sampling.greedy import LikeliestToken
from gshf_release.sampling.places import SLACK, Places, Prompt, replacements
from gshf_release.sampling.protocol import Completion, Request

REFILL = 8
"""New prompts are computed when one place in so many is free: several at once use the device better than one by one."""


@dataclass(slots=True, eq=False)
class Row:
    """A response in the making."""

    index: int
    """Of its request."""
    request: Request
    uniform: Any
    """One random number for every token that it may get."""
    ids: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, index: int, request: Request) -> Row:
        """Return the row of a request, whose numbers depend on its seed alone."""
        generator = np.random.Generator(np.random.Philox(request.seed))
        return cls(index, request, generator.random(request.decoding.max_new_tokens))

    def ended(self, stops: Sequence[int]) -> Completion | None:
        """Return the response if its last token ends it."""
        if self.ids[-1] in stops:
            return Completion(self.ids, "stop")
        return Completion(self.ids, "length") if len(self.ids) == len(self.uniform) else None


Finished = list[tuple[int, Completion]]


def grouped(requests: Sequence[Request]) -> list[list[int]]:
    """Return the positions of the requests of each distinct prompt, longest prompt first, else in the order of appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(tuple(request.prompt_ids), []).append(index)
    return sorted(groups.values(), key=lambda group: -len(requests[group[0]].prompt_ids))


def divided(groups: Sequence[list[int]], workers: int) -> list[list[list[int]]]:
    """Deal the groups to the workers, as many to each; those that are left over are dealt response by response."""
    even = len(groups) - len(groups) % workers
    parts = [[list(group) for group in groups[number:even:workers]] for number in range(workers)]
    for group in groups[even:]:
        for number, part in enumerate(parts):
            part.append(group[number::workers])
    return [[group for group in part if group] for part in parts]


def require_plain_cache(config: Any) -> None:
    """Refuse a model that keeps something else of its context than keys and values, such as a recurrent state.

    Raises:
        EngineError: It does.
    """
    for layer in DynamicCache(config=config).layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise EngineError(
                f"The engine `transformers` cannot sample from a model of the type {config.model_type}: it keeps more of its"
                " context than keys and values.",
                hint="Set engine: vllm in the profile.",
            )


class ContinuousBatch:
    """One batch, from its first prompt to its last response.

    Args:
        model: A causal language model.
        requests: What is wanted.
        groups: Positions of the requests to answer, those of one prompt together, in the order in which they start.
        stops: Ids that end a response.
        rows: Responses decoded together at most.
        likeliest: Takes the last step of greedy decoding; by default that of the model's own logits.
        tokens: Bound of rows x tokens of the longest row (prompt, longest answer, `SLACK`), whose keys and values are kept; at
            least one row is decoded. Prompts being computed need less than as much again. None: only `rows` bounds them.
    """

    def __init__(
        self,
        model: Any,
        requests: Sequence[Request],
        groups: Sequence[list[int]],
        *,
        stops: Sequence[int],
        rows: int,
        tokens: int | None = None,
        likeliest: LikeliestToken | None = None,
    ) -> None:
        self.model, self.requests, self.stops = model, requests, stops
        self.likeliest = likeliest
        self.waiting = deque(groups)
        self.ready: deque[tuple[Row, Prompt]] = deque()
        """Responses with their first token whose prompt has been computed, and that wait for a place."""
        self.live: list[Row] = []
        self.limit, self.tokens = min(rows, sum(map(len, groups))), tokens
        columns = self._columns()
        self.places = Places(self._rows(columns), columns)
        self.accepted = inspect.signature(model.forward).parameters

    def run(self, between: Callable[[], None]) -> Iterator[Finished]:
        """Yield the responses as they end, with the positions of their requests.

        Args:
            between: Called between two calls of the model; what it raises ends the batch.
        """
        while self.waiting or self.ready or self.live:
            between()
            self._make_more_places()
            if self._wants_prompts():
                yield self._compute_prompts()
            self._fill()
            if self.live:
                yield self._step()

    def _columns(self) -> int:
        """Return the columns that the longest of the responses to come needs."""
        started = [row.request.longest for row in (*self.live, *(row for row, _ in self.ready))]
        waiting = [self.requests[index].longest for group in self.waiting for index in group]
        return max(started + waiting, default=0) + SLACK

    def _rows(self, columns: int) -> int:
        return self.limit if self.tokens is None else max(1, min(self.limit, self.tokens // columns))

    def _wants_prompts(self) -> bool:
        if not self.waiting or self._unpromised <= 0:
            return False
        return self._unpromised * REFILL >= self.places.rows or not (self.live or self.ready)

    @property
    def _unpromised(self) -> int:
        """Return the free places for which no response is ready."""
        return self.places.free - len(self.ready)

    def _make_more_places(self) -> None:
        """Turn the memory that shorter rows leave free into more of them, where `tokens` had bounded their number."""
        if self.places.rows == self.limit or not (self.waiting or self.ready):
            return
        columns = self._columns()
        if self._rows(columns) > self.places.rows:
            self.places.resize(self._rows(columns), columns)

    @torch.inference_mode()
    def _compute_prompts(self) -> Finished:
        """Compute the next prompts, as many as fill the free places, and draw the first token of each of their responses."""
        groups: list[list[Row]] = []
        while self.waiting and sum(map(len, groups)) < self._unpromised:
            groups.append([Row.of(index, self.requests[index]) for index in self.waiting.popleft()])
        prompts = [group[0].request.prompt_ids for group in groups]
        width = max(map(len, prompts))
        padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        cache = DynamicCache()
        logits, hidden = self._call(padded, mask, positions, cache)
        finished: Finished = []
        for number, group in enumerate(groups):
            tokens = len(prompts[number])
            kept = [(layer.keys[number, :, -tokens:], layer.values[number, :, -tokens:]) for layer in cache.layers]
            own = None if hidden is None else hidden[number].expand(len(group), -1)
            ended = self._append(group, logits[number].expand(len(group), -1), own)
            finished += [(group[place].index, completion) for place, completion in ended.items()]
            self.ready.extend((row, Prompt(kept, tokens)) for place, row in enumerate(group) if place not in ended)
        return finished

    @torch.inference_mode()
    def _fill(self) -> None:
        """Give the free places to responses that wait for one."""
        entering = [self.ready.popleft() for _ in range(min(self.places.free, len(self.ready)))]
        for _, equal in groupby(entering, key=lambda pair: id(pair[1].layers)):
            pairs = list(equal)
            self.places.enter(pairs[0][1], len(pairs))
            self.live += [row for row, _ in pairs]

    @torch.inference_mode()
    def _step(self) -> Finished:
        """Draw the next token of every live row, and free the places of those that end."""
        self.places.prepare()
        latest = torch.tensor([[row.ids[-1]] for row in self.live])
        positions = torch.tensor(self.places.lengths).unsqueeze(1)
        logits, hidden = self._call(latest, self.places.mask(), positions, self.places.cache)
        self.places.advance()
        ended = self._append(self.live, logits, hidden)
        finished = [(self.live[place].index, completion) for place, completion in ended.items()]
        moves, left = replacements(len(self.live), ended), len(self.live) - len(ended)
        self.places.leave(moves, left)
        for source, target in moves:
            self.live[target] = self.live[source]
        del self.live[left:]
        return finished

    def _call(self, ids: Any, mask: Any, positions: Any, cache: Any) -> tuple[Any, Any]:
        """Return the logits after the last column, (rows, vocabulary), and the hidden states they are made of, if needed."""
        device = self.model.device
        # A mixture of experts whose configuration asks for a router loss would compute it of one new token and a long mask.
        options: dict[str, Any] = {"logits_to_keep": 1, "output_router_logits": False}
        options["position_ids"] = positions.to(device)
        options = {name: value for name, value in options.items() if name in self.accepted}
        output = self.model(
            input_ids=ids.to(device), attention_mask=mask.to(device), past_key_values=cache, use_cache=True, **options
        )
        return output.logits[:, -1], None if self.likeliest is None else self.likeliest.hidden()

    def _append(self, rows: Sequence[Row], logits: Any, hidden: Any) -> dict[int, Completion]:
        """Draw a token for each row; return the responses that it ends, by place."""
        numbers = [float(row.uniform[len(row.ids)]) for row in rows]

        def likeliest(places: list[int]) -> Any:
            if self.likeliest is None:
                return logits[places].argmax(dim=-1)
            return self.likeliest(logits[places], None if hidden is None else hidden[places])

        tokens = draw_tokens(logits, [row.request.decoding for row in rows], numbers, likeliest).tolist()
        ended = {}
        for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            row.ids.append(token)
            if (completion := row.ended(self.stops)) is not None:
                ended[place] = completion
        return ended
