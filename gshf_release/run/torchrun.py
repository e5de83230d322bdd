"""torchrun, which the kernel kills with the command that started it: `python -m gshf_release.run.torchrun ...`."""

from __future__ import annotations

import os
import runpy

from gshf_release.run.lifeline import die_with_launcher

if __name__ == "__main__":
    die_with_launcher()
    if number := os.environ.get("SLURM_NODEID"):
        os.environ["PET_NODE_RANK"] = number  # rank 0 writes where the command reads: on the job's first machine
    runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)
