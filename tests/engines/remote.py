"""A vLLM engine in its own environment, as an engine of this process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from gshf_release import environments
from gshf_release.errors import EngineError
from gshf_release.sampling.protocol import Completion, Progress, Request

SERVANT = Path(__file__).with_name("serve_engine.py")


class RemoteEngine:
    """Starts `serve_engine.py` there and talks to it."""

    def __init__(self, checkpoint: Path, **settings: Any) -> None:
        environment = environments.require("vllm")
        given = {"dtype": "float32", "cores": sorted(os.sched_getaffinity(0)), "vllm": {"compile": False}} | settings
        self._process = subprocess.Popen(
            [str(environment.python), str(SERVANT), str(checkpoint), json.dumps(given)],
            env=environment.variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.stops: list[int] = self._read()["stops"]

    @property
    def process(self) -> int:
        """Its id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request."""
        assert self._process.stdin is not None
        print(json.dumps([asdict(request) for request in requests]), file=self._process.stdin, flush=True)
        answer = self._read()
        for done, total in answer["progress"]:
            progress(done, total, "responses")
        return [Completion(entry["ids"], entry["finish_reason"]) for entry in answer["completions"]]

    def wait(self) -> None:
        """Return once the process has ended."""
        self._process.wait(60)

    def close(self) -> None:
        """Let it leave."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine's process ended with {self._process.wait()}; its errors are above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer
