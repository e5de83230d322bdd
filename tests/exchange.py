"""Exchange batches with another process, and end: run by torchrun as `-m tests.exchange`."""

from __future__ import annotations

from gshf_release.models.batching import in_batches, join_processes, leave_processes
from gshf_release.recipe.profile import Profile
from gshf_release.run import launch

if __name__ == "__main__":
    join_processes(Profile(processes=2, device="cpu"))
    assert [found for _, found in in_batches(sum, [[1], [2, 3]], 1)] == [1, 5]
    leave_processes()
    launch.end(0)
