"""vLLM's own server, in vLLM's environment, behind the engine of OpenAI-compatible servers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

import pytest

from gshf_release import environments
from gshf_release.errors import EngineError
from gshf_release.recipe.profile import Profile, Server
from gshf_release.run.context import silent
from gshf_release.sampling import ENGINES, OpenAIEngine
from gshf_release.sampling.protocol import Completion, Decoding, Request
from gshf_release.serving.openai_client import ChatClient
from tests.sampling.conformance import CONTEXT, PROMPTS, EngineConformance, requests
from tests.tiny import ENDING, EOS

pytestmark = pytest.mark.engines

START_SECONDS = 900.0


class VllmServer:
    """`vllm serve FOLDER` on a free port, with nothing said of decoding: the checkpoint's own defaults are in force."""

    def __init__(self, checkpoint: Path, log: Path) -> None:
        self.checkpoint, self.log = checkpoint, log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.settings = Server(
            address=f"http://127.0.0.1:{self._port}/v1", key_variable="NO_KEY", concurrent_requests=16, attempts=2
        )

    def __enter__(self) -> Self:
        environment = environments.require("vllm")
        core = str(min(os.sched_getaffinity(0)))
        own = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
        own |= {"VLLM_CPU_OMP_THREADS_BIND": core, "HF_HUB_OFFLINE": "1"}
        words = ["--model", str(self.checkpoint), "--host", "127.0.0.1", "--port", str(self._port)]
        words += ["--dtype", "float32", "--max-num-seqs", "16", "--enforce-eager"]
        self._stream: IO[str] = self.log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            environment.command("vllm.entrypoints.openai.api_server", *words),
            env=environment.variables() | own,
            stdin=subprocess.DEVNULL,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its engine is a process of its own
        )
        self._wait_until_ready()
        return self

    def __exit__(self, *reason: object) -> None:
        try:
            self._process.terminate()
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._stream.close()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(f"vLLM's server did not start:\n{self.log.read_text(encoding='utf-8')[-4000:]}")


@pytest.fixture(scope="module")
def server(ending_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    with VllmServer(ending_folder, tmp_path_factory.mktemp("server") / "log.txt") as started:
        yield started


class TestVllmServer(EngineConformance):
    equal_alone_of_eight = 6
    draws = 300

    @pytest.fixture(scope="class")
    def engine(self, server: VllmServer, ending_folder: Path) -> OpenAIEngine:
        return OpenAIEngine(ending_folder, server.settings)


def test_a_profile_opens_it_with_the_context_that_it_serves(server: VllmServer, ending_folder: Path) -> None:
    engine = ENGINES["openai"](ending_folder, Profile(engine="openai", server=server.settings))
    assert engine.context_tokens == CONTEXT
    (found,) = engine.generate([Request([3, ENDING], Decoding(1.0, 4), 7)], silent)
    assert found == Completion([EOS], "stop")


def test_it_reads_the_very_ids_that_it_was_sent(server: VllmServer) -> None:
    """No begin token before them, no text between: what the engine relies on, and checks in every answer."""
    client = ChatClient(server.settings)
    body = {"model": str(server.checkpoint), "prompt": PROMPTS[2], "max_tokens": 3, "return_token_ids": True}
    (choice,) = json.loads(client.send("POST", "/completions", json.dumps(body).encode()))["choices"]
    assert choice["prompt_token_ids"] == PROMPTS[2]
    assert all(type(token) is int for token in choice["token_ids"])


def test_a_copy_of_the_checkpoint_elsewhere_is_another_checkpoint(server: VllmServer, tiny_folder: Path) -> None:
    with pytest.raises(EngineError, match=r"does not serve .*tiny; it serves .*tiny"):
        OpenAIEngine(tiny_folder / "tiny", server.settings)


def test_a_model_that_the_server_does_not_know_is_refused_in_one_line(server: VllmServer, ending_folder: Path) -> None:
    engine = OpenAIEngine(ending_folder, server.settings)
    engine.model = "other"
    with pytest.raises(EngineError, match="refused the request with HTTP 404"):
        engine.generate(requests(1), silent)
