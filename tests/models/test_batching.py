"""Batches in threads, and divided among processes."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.models import batching
from gshf_release.models.batching import by_length, in_batches
from gshf_release.recipe.profile import Profile
from gshf_release.run import launch
from tests.conftest import REPOSITORY


def test_the_longest_come_first_and_none_is_left_out() -> None:
    assert list(by_length([3, 9, 3, 7, 1], 3)) == [[1, 3], [0, 2, 4]]


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 9), st.integers(1, 3))
def test_batches_hold_every_row_once_and_keep_all_workers_busy(lengths: list[int], size: int, workers: int) -> None:
    made = list(by_length(lengths, size, workers))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in made)
    assert len(made) >= min(workers, len(lengths))
    assert [lengths[index] for batch in made for index in batch] == sorted(lengths, reverse=True)


def test_each_worker_has_as_many_batches_as_the_others() -> None:
    assert [len(batch) for batch in by_length([1] * 9, 4, 2)] == [2, 2, 2, 3]


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 9), st.integers(1, 3), st.integers(1, 30))
def test_a_batch_has_no_more_tokens_than_wanted_unless_a_row_has(
    lengths: list[int], size: int, workers: int, tokens: int
) -> None:
    made = list(by_length(lengths, size, workers, tokens))
    assert [index for batch in made for index in batch] == [
        index for batch in by_length(lengths, size, workers) for index in batch
    ]
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= tokens for batch in made if lengths[batch[0]])


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_batches(workers: int) -> None:
    asked = [[4, 1], [2], [3, 0]]
    assert list(in_batches(sum, asked, workers)) == [([4, 1], 5), ([2], 2), ([3, 0], 3)]


@given(count=st.integers(0, 12), processes=st.integers(2, 5))
def test_processes_compute_each_batch_once_and_all_of_them_yield_all_results(count: int, processes: int) -> None:
    asked = [[number, number + 1] for number in range(count)]
    computed: list[list[int]] = []

    def work(batch: list[int]) -> int:
        computed.append(batch)
        return sum(batch)

    for rank in range(processes):
        before = len(computed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "world_size", lambda: processes)
            patch.setattr(launch, "rank", lambda rank=rank: rank)
            patch.setattr(batching, "_joined", lambda: True)
            patch.setattr(
                batching, "_exchange", lambda own: [list(map(sum, asked[r::processes])) for r in range(processes)]
            )
            assert list(in_batches(work, asked, 1)) == [(batch, sum(batch)) for batch in asked]
        assert len(computed) - before <= -(-count // processes)
    assert sorted(computed) == asked


@pytest.mark.slow
def test_processes_end_without_bringing_each_other_down() -> None:
    """Where they did not wait for each other, and the interpreter was taken apart, one of two was often aborted."""
    command = launch.torchrun(["tests.exchange"], "exchange", Profile(processes=2), {})
    for _ in range(4):
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
