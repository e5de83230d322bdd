"""Ctrl-C: exit code 130, the command that goes on, and everything finished is kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests import tiny
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def test_control_c_prints_the_command_that_goes_on(tiny_folder: Path, tmp_path: Path) -> None:
    content = tiny.recipe(tiny_folder, sampling={"n": 16, "max_new_tokens": 200, "prompts_per_shard": 1})
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    arguments = ["train", str(recipe), "--run", str(run)]
    command = [sys.executable, "-m", "gshf_release", *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(run.rglob("manifest.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "the run does not advance"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.rstrip().endswith(f"to go on: gshf-release {' '.join(arguments)}")
    assert list(run.rglob("manifest.json"))
