"""What a machine does at best, how much of that was used, and the peak of the memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Rates(NamedTuple):
    """What a device does at best, per second: operations in products of large matrices, and bytes read from memory."""

    flops: float
    bandwidth: float

    def __str__(self) -> str:
        return f"hardware: {self.flops / 1e9:.0f} GFLOP/s in matrices, reads {self.bandwidth / 1e9:.1f} GB/s"

    def used(self, operations: float, seconds: float) -> str:
        """Return the MFU where arithmetic alone is the limit."""
        share = operations / seconds / self.flops
        return f"MFU, and of the limit, {share:.0%} of {self.flops / 1e9:.0f} GFLOP/s"

    def sampled_at_most(self, *, parameters: int, weight_bytes: int, batch: int) -> float:
        """Return tokens/s of full batches that read the weights once a step or only multiply, whichever takes longer."""
        return batch / max(weight_bytes / self.bandwidth, 2 * parameters * batch / self.flops)


def hardware(device: str, dtype: Any) -> Rates:
    """Return what this device does at best, measured now."""
    import torch

    size = 8192 if device == "cuda" else 512
    square = torch.ones(size, size, dtype=dtype, device=device)
    large = torch.ones(2**30 if device == "cuda" else 2**25, dtype=torch.int32, device=device)

    now = time.perf_counter if device == "cuda" else time.process_time
    share = 1 if device == "cuda" else torch.get_num_threads()

    def best(work: Callable[[], Any]) -> float:
        seconds = []
        for _ in range(20):
            begun = now()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append((now() - begun) / share)
        return min(seconds)

    return Rates(flops=2.0 * size**3 / best(lambda: square @ square), bandwidth=4 * large.numel() / best(large.max))


def forget_peak_memory(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: str) -> float:
    """Return the peak since `forget_peak_memory`, in 1e9 bytes: of torch's allocator on a GPU, else of the process."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e9
