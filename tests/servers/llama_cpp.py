"""A llama.cpp server for one GGUF file, in the environment `gshf-release setup llama-cpp` makes.

    with LlamaCppServer(Path("model.gguf")) as server:
        client = ChatClient(Server(address=server.address))

It speaks OpenAI's chat completions, log-probabilities included, and answers one request at a time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO, Self

from gshf_release import environments
from gshf_release.errors import EngineError
from gshf_release.run import interrupt

HOST = "127.0.0.1"
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 10.0


class LlamaCppServer:
    """Runs while the `with` block does."""

    def __init__(
        self,
        model: Path,
        *,
        name: str = "",
        context_tokens: int = 4096,
        threads: int | None = None,
        start_seconds: float = 120.0,
    ) -> None:
        """Describe the server; nothing runs yet.

        Args:
            model: A GGUF file.
            name: What the model is called in requests and answers; the file's name if empty.
            context_tokens: Longest conversation with its answer.
            threads: CPU threads; None takes all cores that this process may use.
            start_seconds: How long it may take until it answers.
        """
        self.model = model
        self.name = name or model.stem
        self.context_tokens = context_tokens
        self.threads = threads or len(os.sched_getaffinity(0))
        self.start_seconds = start_seconds
        self.address = ""
        """Up to and without `/chat/completions`, once it runs."""

    def __enter__(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            EngineError: The environment is not set up, the file is missing or cannot be served, or it took too long.
        """
        environment = environments.require("llama-cpp")
        if not self.model.is_file():
            raise EngineError(f"{self.model} does not exist.")
        port = _free_port()
        arguments = {
            "--model": str(self.model),
            "--model_alias": self.name,
            "--host": HOST,
            "--port": str(port),
            "--n_ctx": str(self.context_tokens),
            "--n_threads": str(self.threads),
            "--n_threads_batch": str(self.threads),
            "--logits_all": "true",  # without it, log-probabilities are refused
        }
        self._log: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            environment.command("llama_cpp.server", *(part for pair in arguments.items() for part in pair)),
            env=environment.variables(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.address = f"http://{HOST}:{port}/v1"
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        """Stop it."""
        self._stop()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + self.start_seconds
        while True:
            if self._process.poll() is not None:
                interrupt.check()  # Ctrl-C reaches it too
                raise EngineError(f"llama.cpp cannot serve {self.model.name}: {self._last_words()}.")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/models", timeout=5):
                return
            if time.monotonic() > end:
                raise EngineError(f"llama.cpp did not serve {self.model.name} within {self.start_seconds:g} seconds.")
            interrupt.sleep(POLL_SECONDS)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        told = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "no output")
        return told.strip().rstrip(".")

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
