"""Length-sorted batches, computed side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gshf_release.run import interrupt

Result = TypeVar("Result")


def by_length(lengths: Sequence[int], size: int, workers: int = 1) -> Iterator[list[int]]:
    """Yield batches of positions, longest first, so that a batch pads little and memory fails early.

    Args:
        lengths: Of the rows.
        size: Rows in a batch at most; fewer where that gives each of the workers as many batches as the others.
        workers: How many batches are computed side by side.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    rounds = math.ceil(len(order) / (size * workers))
    size = max(1, math.ceil(len(order) / max(1, rounds * workers)))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def in_batches(
    work: Callable[[list[int]], Result], batches: Iterable[list[int]], workers: int
) -> Iterator[tuple[list[int], Result]]:
    """Yield `(batch, work(batch))` in order, with up to `workers` batches computed side by side in threads.

    Stops between batches if the process was asked to.

    torch releases the interpreter inside its kernels, so two single-threaded batches use two cores without the barriers that
    make a two-threaded one wait whenever a core is taken away. Each batch is computed alone: the results do not change.
    """
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
