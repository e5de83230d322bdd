"""The core imports without what engines and training need: a command answers at once, and a worker can live elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.conftest import REPOSITORY

HEAVY = ("torch", "transformers", "trl", "vllm", "ray")
WITH_TORCH = {"gshf_release.optimization.trainer", "gshf_release.sampling.continuous", "gshf_release.sampling.kv_cache"}
"""Imported by those that train or sample, when they do."""
PROGRAM = f"""
import importlib, json, pkgutil, sys
sys.modules.update(dict.fromkeys({HEAVY!r}))
import gshf_release
failed = []
names = [module.name for module in pkgutil.walk_packages(gshf_release.__path__, "gshf_release.")]
for name in names:
    try:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    except ImportError:
        failed.append(name)
print(json.dumps([len(names), failed]))
"""


def test_all_but_three_modules_import_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120
    )
    count, failed = json.loads(done.stdout)
    assert count > 200
    assert set(failed) == WITH_TORCH
