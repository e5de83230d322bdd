"""Implements continuous batching: responses leave the batch as they end, and others take their slots.

The scheduling is that of Orca (Yu et al., OSDI 2022): the batch changes between decode steps and not when all its responses
have ended. A request passes through three queues:

    waiting --prefill--> prefilled --admit--> active --decode steps--> finished
    (prompts)            (first token)        (a slot)

A prompt is prefilled once for all its responses: their slots start from copies of its keys and values. Prompts come longest
first, so that those prefilled together need little padding and a lack of memory shows early; how long an answer gets is not
known beforehand and decides nothing.
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
from gshf_release.sampling.greedy import LikeliestToken
from gshf_release.sampling.kv_cache import SLACK, KVCache, PrefilledPrompt, compaction_moves
from gshf_release.sampling.protocol import Completion, Request
from gshf_release.sampling.token_sampling import draw_tokens

REFILL = 8
"""New prompts are prefilled when one slot in so many is free: several at once use the device better than one by one."""


@dataclass(slots=True, eq=False)
class ActiveRequest:
    """Holds a request with the tokens of its response so far."""

    index: int
    """Of the request."""
    request: Request
    uniform: Any
    """One random number for every token that it may get."""
    ids: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, index: int, request: Request) -> ActiveRequest:
        """Start a response, with random numbers that depend on the request's seed alone."""
        # All are drawn now: a draw in each decode step would depend on what else is in the batch, and when.
        generator = np.random.Generator(np.random.Philox(request.seed))
        return cls(index, request, generator.random(request.decoding.max_new_tokens))

    def completed(self, stops: Sequence[int]) -> Completion | None:
        """Return the response if its last token ends it."""
        if self.ids[-1] in stops:
            return Completion(self.ids, "stop")
        return Completion(self.ids, "length") if len(self.ids) == len(self.uniform) else None


Finished = list[tuple[int, Completion]]


def group_by_prompt(requests: Sequence[Request]) -> list[list[int]]:
    """Return the positions of the requests of each distinct prompt, longest prompt first, else in the order of appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(tuple(request.prompt_ids), []).append(index)
    return sorted(groups.values(), key=lambda group: -len(requests[group[0]].prompt_ids))


def deal_to_workers(groups: Sequence[list[int]], workers: int) -> list[list[list[int]]]:
    """Deal the groups to the workers, as many to each; those that are left over are dealt response by response.

    Groups a to e of two requests each, two workers:   a0 a1 c0 c1 e0   and   b0 b1 d0 d1 e1
    """
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
    """Runs one batch, from its first prompt to its last response.

    Args:
        model: A causal language model.
        requests: What is wanted.
        groups: Positions of the requests to answer, those of one prompt together, in the order in which they start.
        stops: Ids that end a response.
        slots: Responses decoded together at most.
        likeliest: Takes the last step of greedy decoding; by default that of the model's own logits.
        tokens: Bound of slots x tokens of the longest sequence (prompt, longest answer, `SLACK`) in the KV cache; at least
            one slot is there. Prompts being prefilled need less than as much again. None: only `slots` bounds it.
    """

    def __init__(
        self,
        model: Any,
        requests: Sequence[Request],
        groups: Sequence[list[int]],
        *,
        stops: Sequence[int],
        slots: int,
        tokens: int | None = None,
        likeliest: LikeliestToken | None = None,
    ) -> None:
        self.model, self.requests, self.stops = model, requests, stops
        self.likeliest = likeliest
        self.waiting = deque(groups)
        self.prefilled: deque[tuple[ActiveRequest, PrefilledPrompt]] = deque()
        """Requests with their first token whose prompt has been prefilled, and that wait for a slot."""
        self.active: list[ActiveRequest] = []
        """Requests being decoded, by slot: `active[s]` and the KV cache's slot `s` move together."""
        self.limit, self.tokens = min(slots, sum(map(len, groups))), tokens
        columns = self._columns_needed()
        self.kv_cache = KVCache(self._slots_of(columns), columns)
        self.accepted = inspect.signature(model.forward).parameters

    def run(self, between: Callable[[], None]) -> Iterator[Finished]:
        """Yield the responses as they end, with the positions of their requests.

        Args:
            between: Called between two calls of the model; what it raises ends the batch.
        """
        while self.waiting or self.prefilled or self.active:
            between()
            self._add_slots()
            if self._should_prefill():
                yield self._prefill()
            self._admit()
            if self.active:
                yield self._decode_step()

    def _columns_needed(self) -> int:
        """Return the columns that the longest of the responses to come needs."""
        started = [entry.request.longest for entry in (*self.active, *(entry for entry, _ in self.prefilled))]
        waiting = [self.requests[index].longest for group in self.waiting for index in group]
        return max(started + waiting, default=0) + SLACK

    def _slots_of(self, columns: int) -> int:
        """Return how many slots of so many columns both bounds allow."""
        return self.limit if self.tokens is None else max(1, min(self.limit, self.tokens // columns))

    def _should_prefill(self) -> bool:
        if not self.waiting or self._unclaimed <= 0:
            return False
        # With nothing to decode the share does not matter: waiting for more free slots would be waiting for ever.
        return self._unclaimed * REFILL >= self.kv_cache.slots or not (self.active or self.prefilled)

    @property
    def _unclaimed(self) -> int:
        """Return the free slots for which no prefilled request waits."""
        return self.kv_cache.free - len(self.prefilled)

    def _add_slots(self) -> None:
        """Turn the memory that shorter sequences leave free into more slots, where `tokens` had bounded their number."""
        # Prompts come longest first: the columns that a slot needs become fewer as the batch goes on.
        if self.kv_cache.slots == self.limit or not (self.waiting or self.prefilled):
            return
        columns = self._columns_needed()
        if self._slots_of(columns) > self.kv_cache.slots:
            self.kv_cache.resize(self._slots_of(columns), columns)

    @torch.inference_mode()
    def _prefill(self) -> Finished:
        """Prefill the next prompts, as many as fill the free slots, and draw the first token of each of their responses.

        Prompts are padded on the left, so that the last column has the logits of every first token:

            ids   0 0 p p p    mask   0 0 1 1 1    positions   0 0 0 1 2        each (prompts, width)
                  q q q q q           1 1 1 1 1                0 1 2 3 4
        """
        groups: list[list[ActiveRequest]] = []
        # The last group may have more responses than there are slots: the rest waits in `prefilled`.
        while self.waiting and sum(map(len, groups)) < self._unclaimed:
            groups.append([ActiveRequest.of(index, self.requests[index]) for index in self.waiting.popleft()])
        prompts = [group[0].request.prompt_ids for group in groups]
        width = max(map(len, prompts))
        padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        # Made without the model's configuration: with it, a layer with a sliding window would drop what has left the window.
        cache = DynamicCache()
        logits, hidden = self._forward(padded, mask, positions, cache)
        finished: Finished = []
        for number, group in enumerate(groups):
            tokens = len(prompts[number])
            # Views without the padding, (heads, tokens, head width): they hold the cache of all these prompts until the last
            # of their responses has a slot.
            kept = [(layer.keys[number, :, -tokens:], layer.values[number, :, -tokens:]) for layer in cache.layers]
            # One prompt's last logits, (1, vocabulary), serve all its responses: each draws with its own numbers.
            own = None if hidden is None else hidden[number].expand(len(group), -1)
            ended = self._append(group, logits[number].expand(len(group), -1), own)
            finished += [(group[place].index, completion) for place, completion in ended.items()]
            prompt = PrefilledPrompt(kept, tokens)
            self.prefilled.extend((entry, prompt) for place, entry in enumerate(group) if place not in ended)
        return finished

    @torch.inference_mode()
    def _admit(self) -> None:
        """Give the free slots to prefilled requests."""
        entering = [self.prefilled.popleft() for _ in range(min(self.kv_cache.free, len(self.prefilled)))]
        # Responses to one prompt stand together in the queue and share its tensors: one copy fills all their slots.
        for _, same_prompt in groupby(entering, key=lambda pair: id(pair[1])):
            pairs = list(same_prompt)
            self.kv_cache.insert(pairs[0][1], len(pairs))
            self.active += [entry for entry, _ in pairs]

    @torch.inference_mode()
    def _decode_step(self) -> Finished:
        """Draw the next token of every active request, and free the slots of those that end.

        The KV cache lags one token behind: it holds the prompt and `ids[:-1]`. This step feeds `ids[-1]`, whose position is
        therefore the number of tokens in the cache, and draws the token after it.
        """
        self.kv_cache.prepare()
        latest = torch.tensor([[entry.ids[-1]] for entry in self.active])
        positions = torch.tensor(self.kv_cache.lengths).unsqueeze(1)
        logits, hidden = self._forward(latest, self.kv_cache.mask(), positions, self.kv_cache.past_key_values)
        self.kv_cache.advance()
        ended = self._append(self.active, logits, hidden)
        finished = [(self.active[slot].index, completion) for slot, completion in ended.items()]
        moves, left = compaction_moves(len(self.active), ended), len(self.active) - len(ended)
        self.kv_cache.remove(moves, left)
        for source, target in moves:
            self.active[target] = self.active[source]
        del self.active[left:]
        return finished

    def _forward(self, ids: Any, mask: Any, positions: Any, cache: Any) -> tuple[Any, Any]:
        """Return the logits after the last column, (rows, vocabulary), and the hidden states they are made of, if needed."""
        device = self.model.device
        # A mixture of experts whose configuration asks for a router loss would compute it from the new tokens and the mask of
        # the whole window, and fail: https://github.com/huggingface/transformers/issues/30731
        options: dict[str, Any] = {"logits_to_keep": 1, "output_router_logits": False}
        options["position_ids"] = positions.to(device)
        options = {name: value for name, value in options.items() if name in self.accepted}
        output = self.model(
            input_ids=ids.to(device), attention_mask=mask.to(device), past_key_values=cache, use_cache=True, **options
        )
        return output.logits[:, -1], None if self.likeliest is None else self.likeliest.hidden()

    def _append(self, entries: Sequence[ActiveRequest], logits: Any, hidden: Any) -> dict[int, Completion]:
        """Draw a token for each request; return the responses that it ends, by place in `entries`."""
        # The n-th token takes the n-th number, whatever shares the batch.
        numbers = [float(entry.uniform[len(entry.ids)]) for entry in entries]

        def likeliest(places: list[int]) -> Any:
            if self.likeliest is None:
                return logits[places].argmax(dim=-1)
            return self.likeliest(logits[places], None if hidden is None else hidden[places])

        tokens = draw_tokens(logits, [entry.request.decoding for entry in entries], numbers, likeliest).tolist()
        ended = {}
        for place, (entry, token) in enumerate(zip(entries, tokens, strict=True)):
            entry.ids.append(token)
            if (completion := entry.completed(self.stops)) is not None:
                ended[place] = completion
        return ended
