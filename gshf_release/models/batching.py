"""Length-sorted batches, computed side by side: in threads, and in the processes that torchrun started for a stage."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from gshf_release.recipe.profile import Profile
from gshf_release.run import interrupt, launch

PATIENCE = timedelta(hours=6)
"""How long a process waits for the others, as while one writes a model. If one dies, torchrun ends them all at once."""

Result = TypeVar("Result")


def join_processes(profile: Profile) -> None:
    """Prepare a task of a distributed stage that computes in batches; called before its model is loaded.

    Every process must then ask for the same batches: `in_batches` divides them. Only that of rank 0 writes anything.

    Raises:
        RunError: Another number of processes came together than the profile asks for.
    """
    launch.require_world_size(profile, launch.world_size())
    if launch.world_size() == 1:
        return
    import torch

    if torch.distributed.is_initialized():  # by an earlier shard
        return
    if profile.device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)


def leave_processes() -> None:
    """Part from the other training processes when all of them have done their work; nothing for one that is alone.

    `launch.end` then ends the process.
    """
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def by_length(lengths: Sequence[int], size: int, workers: int = 1, tokens: int | None = None) -> Iterator[list[int]]:
    """Yield batches of positions, longest first, so that a batch pads little and memory fails early.

    Args:
        lengths: Of the rows.
        size: Rows in a batch at most; fewer where that gives each of the workers as many batches as the others.
        workers: How many batches are computed side by side.
        tokens: In a batch at most with its padding, unless a single row has more; None sets no bound.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    rounds = math.ceil(len(order) / (size * workers))
    count = min(len(order), rounds * workers)
    for number in range(count):
        batch = order[number * len(order) // count : (number + 1) * len(order) // count]
        while batch:
            rows = size if tokens is None else max(1, tokens // max(1, lengths[batch[0]]))
            yield batch[:rows]
            batch = batch[rows:]


def in_batches(
    work: Callable[[list[int]], Result], batches: Iterable[list[int]], workers: int
) -> Iterator[tuple[list[int], Result]]:
    """Yield `(batch, work(batch))` in order, with up to `workers` batches computed side by side in threads.

    After `join_processes` each process computes every n-th batch, and all of them yield all results. Stops between batches if
    the process was asked to.

    torch releases the interpreter inside its kernels, so two single-threaded batches use two cores without the barriers that
    make a two-threaded one wait whenever a core is taken away. Each batch is computed alone: the results do not change.
    """
    if not _joined():
        yield from _in_threads(work, batches, workers)
        return
    listed = list(batches)
    own = [result for _, result in _in_threads(work, listed[launch.rank() :: launch.world_size()], workers)]
    parts = _exchange(own)
    for number, batch in enumerate(listed):
        yield batch, parts[number % len(parts)][number // len(parts)]


def _in_threads(
    work: Callable[[list[int]], Result], batches: Iterable[list[int]], workers: int
) -> Iterator[tuple[list[int], Result]]:
    if workers == 1:
        for batch in batches:
            interrupt.check()
            yield batch, work(batch)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending = [(batch, pool.submit(work, batch)) for batch in batches]
        for batch, future in pending:
            try:
                interrupt.check()
                yield batch, future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _joined() -> bool:
    """Return whether this process shares its batches with others."""
    if launch.world_size() == 1:
        return False
    import torch

    return torch.distributed.is_initialized()


def _exchange(own: list[Result]) -> list[list[Result]]:
    """Return what every process computed, by rank."""
    import torch

    parts: list[list[Result]] = [[] for _ in range(launch.world_size())]
    torch.distributed.all_gather_object(parts, own)
    return parts
