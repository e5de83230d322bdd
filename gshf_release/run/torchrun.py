"""torchrun, which the kernel kills with the command that started it: `python -m gshf_release.run.torchrun ...`."""

from __future__ import annotations

import runpy

from gshf_release.run.lifeline import die_with_launcher

if __name__ == "__main__":
    die_with_launcher()
    runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)
