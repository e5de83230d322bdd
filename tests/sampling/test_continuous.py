"""Continuous batching: what is computed, and that it decides nothing. FP32 on the CPU, calls of the model counted by a hook."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.errors import EngineError, Interrupted
from gshf_release.run import interrupt
from gshf_release.run.context import silent
from gshf_release.sampling import Completion, Decoding, Request, TransformersEngine
from gshf_release.sampling.continuous import ContinuousBatch, deal_to_workers, group_by_prompt, require_plain_cache
from gshf_release.sampling.kv_cache import SLACK, KVCache, PrefilledPrompt, compaction_moves
from tests.tiny import model

PROMPTS = [[3, 40, 41, 42, 5], [3, 9], [3, 9, 10, 11, 12, 13, 14, 15, 16], [7]]
LONG = [6 + step * 7 % 290 for step in range(200)]


@pytest.fixture(scope="module")
def engine(tiny_folder: Path) -> TransformersEngine:
    """Return an engine that never ends a response before its limit: a test sets how long each is."""
    engine = TransformersEngine(tiny_folder / "tiny", precision="fp32", device="cpu", batch=4)
    engine.stops = []
    return engine


@pytest.fixture(scope="module")
def ending(ending_folder: Path) -> TransformersEngine:
    """Return an engine that ends a response with a chance of 8% a token."""
    return TransformersEngine(ending_folder, precision="fp32", device="cpu", batch=4)


@pytest.fixture
def calls(engine: TransformersEngine) -> Iterator[list[tuple[int, int]]]:
    """Return the (rows, columns) of the ids of every call of the model: one column is a step, more are prompts."""
    seen: list[tuple[int, int]] = []

    def note(module: Any, positional: Any, named: dict[str, Any]) -> None:
        seen.append(tuple(named["input_ids"].shape))

    hook = engine.model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


def wanted(prompt: list[int], limits: list[int]) -> list[Request]:
    return [Request(prompt, Decoding(1.0, limit), seed) for seed, limit in enumerate(limits)]


def steps(calls: list[tuple[int, int]]) -> list[int]:
    """Return the rows of every call for one more token."""
    return [rows for rows, columns in calls if columns == 1]


def changed(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch, **options: Any) -> TransformersEngine:
    for name, value in options.items():
        monkeypatch.setattr(engine, name, value)
    return engine


def test_rows_enter_as_others_leave(engine: TransformersEngine, calls: list[tuple[int, int]]) -> None:
    """Static batches of 4 would take 3 x 39 steps; each response gets its first token with its prompt."""
    limits = [40, 2, 2, 2, 40, 2, 2, 2, 40, 2, 2, 2]
    engine.generate(wanted(PROMPTS[0], limits), silent)
    assert sum(steps(calls)) == sum(limits) - len(limits), "no row is computed after its end"
    assert len(steps(calls)) <= 45


def test_a_free_slot_costs_nothing(engine: TransformersEngine, calls: list[tuple[int, int]]) -> None:
    engine.generate(wanted(PROMPTS[0], [6, 3, 2]), silent)
    assert steps(calls) == [3, 2, 1, 1, 1]


def test_a_prompt_is_computed_once_for_all_its_responses(
    engine: TransformersEngine, calls: list[tuple[int, int]]
) -> None:
    """Ten responses to each of two prompts in batches of four: the prompt stays known until its last response has begun."""
    limits = [2, 5, 3, 9, 2, 4, 2, 2, 6, 3]
    engine.generate([*wanted(PROMPTS[0], limits), *wanted(PROMPTS[2], limits)], silent)
    assert [shape for shape in calls if shape[1] > 1] == [(1, 9), (1, 5)]


def test_prompts_that_fill_the_batch_are_computed_together(
    engine: TransformersEngine, calls: list[tuple[int, int]]
) -> None:
    engine.generate([*wanted(PROMPTS[0], [3, 3]), *wanted(PROMPTS[2], [3, 3])], silent)
    assert calls == [(2, 9), (4, 1), (4, 1)]


def test_new_prompts_wait_until_a_share_of_the_slots_is_free(
    engine: TransformersEngine, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 slots two must be free; one comes free after each step."""
    first = [request for number in range(16) for request in wanted([3, 20 + number], [2 + number])]
    later = [request for number in range(4) for request in wanted([60 + number], [2])]
    changed(engine, monkeypatch, batch=16).generate([*first, *later], silent)
    # Shortest prompts come last: two steps empty two slots, the new ones stay for one step and make room with the third.
    assert calls[:4] == [(16, 2), (16, 1), (15, 1), (2, 1)]


def test_a_response_of_one_token_takes_no_slot(engine: TransformersEngine, calls: list[tuple[int, int]]) -> None:
    engine.generate(wanted(PROMPTS[0], [1] * 9), silent)
    assert calls == [(1, 5)] * len(calls)
    assert len(calls) == 1


def mixed(count: int) -> list[Request]:
    """Return requests of every kind: prompts of 1 to 200 tokens, greedy and drawn, limits of 1 to 30 tokens."""
    decodings = [Decoding(1.0, 30), Decoding(0.0, 8), Decoding(0.7, 17, top_p=0.9), Decoding(1.2, 1), Decoding(1.0, 25)]
    prompts = [*PROMPTS, LONG]
    return [
        Request(prompts[number // 3 % 5], decodings[number % 5], 2**40 + number // 2 * 2 + (number % 4 == 3))
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def alone(ending: TransformersEngine) -> list[Completion]:
    return [ending.generate([request], silent)[0] for request in mixed(60)]


@pytest.mark.parametrize(
    "options",
    [{"batch": 1}, {"batch": 3}, {"batch": 64}, {"batch": 5, "workers": 2}, {"batch": 16, "tokens": 500}],
    ids=str,
)
def test_responses_do_not_depend_on_what_shares_the_batch(
    ending: TransformersEngine, alone: list[Completion], options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert changed(ending, monkeypatch, **options).generate(mixed(60), silent) == alone
    assert {completion.finish_reason for completion in alone} == {"stop", "length"}


def test_responses_do_not_depend_on_the_order(ending: TransformersEngine, alone: list[Completion]) -> None:
    assert ending.generate(mixed(60)[::-1], silent)[::-1] == alone


def test_rows_are_moved_back_to_the_left_in_a_long_run(engine: TransformersEngine) -> None:
    """Columns for 5 + 12 + SLACK tokens, and many more steps than that."""
    requests = [request for _ in range(12) for request in wanted(PROMPTS[0], [12, 7, 12, 9])]
    together = engine.generate([*requests, *wanted(PROMPTS[1], [10] * 3)], silent)
    assert together[:4] == together[4:8] == together[44:48]
    assert together[:4] == [engine.generate([request], silent)[0] for request in requests[:4]]


def test_a_long_prompt_beside_short_ones_is_greedy_search(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Request(prompt, Decoding(0.0, 20), 0) for prompt in (PROMPTS[1], LONG, PROMPTS[0])]
    for request, completion in zip(requests, engine.generate(requests, silent), strict=True):
        prompt = torch.tensor([request.prompt_ids])
        expected = engine.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20, eos_token_id=None
        )
        assert completion.ids == expected[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("window", [4, 16])
def test_a_sliding_window_is_honoured(window: int, one_thread: None) -> None:
    """Beside transformers' own cache, which forgets what has left the window."""
    sliding = model(seed=5, sliding_window=window)
    requests = [Request(prompt, Decoding(0.0, 24), 0) for prompt in (PROMPTS[2], LONG[:40], PROMPTS[3])]
    batch = ContinuousBatch(sliding, requests, group_by_prompt(requests), stops=[], slots=3)
    found = {index: completion.ids for finished in batch.run(lambda: None) for index, completion in finished}
    for number, request in enumerate(requests):
        prompt = torch.tensor([request.prompt_ids])
        expected = sliding.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=24, eos_token_id=None
        )
        assert found[number] == expected[0, prompt.shape[1] :].tolist()


def test_the_bound_in_tokens_holds_and_short_prompts_get_more_rows(
    engine: TransformersEngine, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1000 tokens: three rows of 200 + 10 + SLACK, then eleven of 5 + 10 + SLACK."""
    held: list[int] = []
    insert = KVCache.insert

    def noted(kv_cache: KVCache, prompt: PrefilledPrompt, count: int) -> None:
        insert(kv_cache, prompt, count)
        held.append(sum(layer.all_keys[:, 0, :, 0].numel() for layer in kv_cache.past_key_values.layers[:1]))

    monkeypatch.setattr(KVCache, "insert", noted)
    changed(engine, monkeypatch, batch=40, tokens=1000)
    engine.generate([*wanted(LONG, [10] * 5), *wanted(PROMPTS[0], [10] * 30)], silent)
    assert max(held) <= 1000
    assert steps(calls)[0] == 3
    assert max(steps(calls)) == 1000 // (15 + SLACK)


def test_a_row_beyond_the_bound_in_tokens_is_decoded_alone(
    engine: TransformersEngine, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(engine, monkeypatch, tokens=50).generate(wanted(LONG, [3, 3]), silent)
    assert steps(calls) == [1, 1, 1, 1]


def test_each_finished_response_is_told_when_it_ends(engine: TransformersEngine) -> None:
    heard: list[int] = []
    engine.generate(wanted(PROMPTS[0], [5, 1, 3, 3, 2]), lambda done, total, unit: heard.append(done))
    assert heard == [1, 2, 4, 5]


def test_a_request_to_stop_is_heard_between_two_steps(
    engine: TransformersEngine, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(done: int, total: int, unit: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with interrupt.stop_gently(), pytest.raises(Interrupted):
        engine.generate(wanted(PROMPTS[0], [2, 40, 40]), kill)
    assert len(calls) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_one_batch_ends_the_others(
    engine: TransformersEngine, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    failed, long = threading.Event(), set[int]()

    def fail(done: int, total: int, unit: str) -> None:
        failed.set()
        raise OSError("the screen is gone")

    def wait_for_the_short_batch(module: Any, positional: Any, named: dict[str, Any]) -> None:
        if named["input_ids"].shape[1] == len(PROMPTS[0]):
            long.add(threading.get_ident())
        elif threading.get_ident() in long and len(calls) > 100:
            assert failed.wait(60)

    hook = engine.model.register_forward_pre_hook(wait_for_the_short_batch, with_kwargs=True)
    requests = [*wanted(PROMPTS[0], [200] * 2), *wanted(PROMPTS[1], [2] * 2)]
    with pytest.raises(OSError, match="the screen is gone"):
        changed(engine, monkeypatch, workers=workers).generate(requests, fail)
    hook.remove()
    assert len(calls) < 150


def test_a_model_with_a_recurrent_state_is_refused_in_one_line() -> None:
    from transformers import Qwen3NextConfig

    with pytest.raises(EngineError, match="cannot sample from a model of the type qwen3_next") as refused:
        require_plain_cache(Qwen3NextConfig(num_hidden_layers=4))
    assert "engine: vllm" in str(refused.value.hint)


def test_equal_prompts_are_one_group_and_the_longest_comes_first() -> None:
    requests = [request for prompt in ([1, 2], [3], [1, 2], [4, 5, 6]) for request in wanted(prompt, [2])]
    assert group_by_prompt(requests) == [[3], [0, 2], [1]]


@given(st.lists(st.integers(1, 6), max_size=12), st.integers(1, 4))
def test_work_is_divided_evenly_and_whole_groups_stay_together(sizes: list[int], workers: int) -> None:
    positions = iter(range(sum(sizes)))
    groups = [[next(positions) for _ in range(size)] for size in sizes]
    parts = deal_to_workers(groups, workers)
    assert len(parts) == workers
    assert sorted(index for part in parts for group in part for index in group) == list(range(sum(sizes)))
    split = [group for part in parts for group in part if group not in groups]
    assert {index for group in split for index in group} <= {index for g in groups[-(workers - 1) :] for index in g}
    if len(set(sizes)) == 1:
        loads = [sum(map(len, part)) for part in parts]
        assert max(loads) - min(loads) <= workers - 1


@given(st.integers(1, 30).flatmap(lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1)))))
def test_after_the_moves_the_rows_that_stay_are_the_first(case: tuple[int, set[int]]) -> None:
    count, leaving = case
    rows = list(range(count))
    for source, target in compaction_moves(count, leaving):
        rows[target] = source
    assert set(rows[: count - len(leaving)]) == set(range(count)) - leaving


def kept(kv_cache: KVCache) -> list[list[float]]:
    """Return what each row's columns of the window hold."""
    layer = kv_cache.past_key_values.layers[0]
    return [
        layer.all_keys[slot, 0, kv_cache.end - length : kv_cache.end, 0].tolist()
        for slot, length in enumerate(kv_cache.lengths)
    ]


@given(st.lists(st.tuples(st.sampled_from(["enter", "step", "leave", "resize"]), st.integers(1, 5)), max_size=40))
def test_every_row_keeps_its_own_numbers(actions: list[tuple[str, int]]) -> None:
    """Beside a plain list of lists: rows of up to 12 numbers in slots of 16 columns."""
    kv_cache = KVCache(4, 16)
    expected: list[list[float]] = []
    fresh = (float(number) for number in range(1, 10_000))
    for action, size in actions:
        if action == "enter" and kv_cache.free:
            numbers = [next(fresh) for _ in range(size)]
            stored = torch.tensor(numbers).view(1, size, 1)
            kv_cache.insert(PrefilledPrompt([(stored, -stored)], size), 1)
            expected.append(numbers)
        elif action == "step" and expected and kv_cache.width < 12:
            kv_cache.prepare()
            new = torch.tensor([next(fresh) for _ in expected]).view(-1, 1, 1, 1)
            assert kv_cache.mask().sum(dim=1).tolist() == [len(row) + 1 for row in expected]
            keys, _ = kv_cache.past_key_values.update(new, -new, 0)
            assert keys.shape == (len(expected), 1, kv_cache.width + 1, 1)
            kv_cache.advance()
            expected = [[*row, float(number)] for row, number in zip(expected, new.flatten(), strict=True)]
        elif action == "leave" and expected:
            gone = {size % len(expected)}
            moves, left = compaction_moves(len(expected), gone), len(expected) - 1
            kv_cache.remove(moves, left)
            for source, target in moves:
                expected[target] = expected[source]
            del expected[left:]
        elif action == "resize":
            kv_cache.resize(4 + size, 16 + size)
        if kv_cache.past_key_values:
            assert kept(kv_cache) == expected
