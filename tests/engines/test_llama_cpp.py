"""llama.cpp in its own environment: it serves a real model to our client, and opens the GGUF files that we write."""

from __future__ import annotations

import json
import math
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gshf_release import environments
from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.recipe.profile import Server
from gshf_release.serving.openai_client import ChatClient, ChatRequest
from tests.servers.llama_cpp import LlamaCppServer

pytestmark = pytest.mark.engines

QUESTION = [Message(role="user", content="What is the capital of France? Answer with one word.")]
READ = """
import json, sys
import llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=64, n_threads=1, logits_all=True, verbose=False)
ids = json.loads(sys.argv[2])
model.eval(ids)
text = model.tokenize(sys.argv[3].encode(), add_bos=False, special=True)
print(json.dumps({"logits": model.scores[:len(ids)].tolist(), "ids": text, "eos": model.token_eos()}))
"""


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path) -> Any:
    """Return a server of the real model."""
    with LlamaCppServer(smollm2_gguf, name="smollm2", context_tokens=1024) as server:
        yield server


def test_a_real_model_answers_our_client(smollm2: LlamaCppServer) -> None:
    client = ChatClient(Server(address=smollm2.address, timeout_seconds=300))
    answer = client.complete(ChatRequest("smollm2", QUESTION, temperature=0.0, max_tokens=16, seed=1))
    assert answer.text.strip()
    assert answer.finish_reason in ("stop", "length")
    assert answer.prompt_tokens > 10
    assert 1 <= answer.completion_tokens <= 16
    assert client.complete(ChatRequest("smollm2", QUESTION, 0.0, 2)).finish_reason == "length"


def test_it_gives_log_probabilities(smollm2: LlamaCppServer) -> None:
    body = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "max_tokens": 1}
    body |= {"logprobs": True, "top_logprobs": 5}
    request = urllib.request.Request(
        f"{smollm2.address}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        (token,) = json.loads(answer.read())["choices"][0]["logprobs"]["content"]
    likeliest = [entry["logprob"] for entry in token["top_logprobs"]]
    assert len(likeliest) == 5
    assert max(likeliest) <= 0
    assert sum(math.exp(value) for value in likeliest) <= 1 + 1e-6
    assert token["logprob"] == max(likeliest), "greedy takes the likeliest"


def test_the_server_leaves_with_its_block(smollm2_gguf: Path) -> None:
    with (
        LlamaCppServer(smollm2_gguf, context_tokens=128) as server,
        urllib.request.urlopen(f"{server.address}/models", timeout=30) as answer,
    ):
        assert json.loads(answer.read())["data"][0]["id"] == smollm2_gguf.stem
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{server.address}/models", timeout=30)


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF, or so it says")
    with pytest.raises(EngineError, match=r"^llama.cpp cannot serve broken.gguf: "), LlamaCppServer(path):
        pass
    with pytest.raises(EngineError, match="does not exist"), LlamaCppServer(tmp_path / "absent.gguf"):
        pass


@pytest.mark.parametrize(("encoding", "largest"), [("F32", 1e-2), ("F16", 2e-2), ("Q8_0", 0.2)])
def test_our_gguf_files_open_with_the_models_logits_and_tokens(
    tiny_folder: Path, policy: Any, tokenizer: Any, tmp_path: Path, encoding: str, largest: float
) -> None:
    import torch

    from gshf_release.release.quantization.gguf import write_gguf

    path, text = tmp_path / "tiny.gguf", "<|user|>\nwhy is the rain in the cup?</s>\n"
    write_gguf(tiny_folder / "tiny", path, encoding=encoding, name="Tiny")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    environment = environments.require("llama-cpp")
    done = subprocess.run(
        [str(environment.python), "-c", READ, str(path), json.dumps(ids), text],
        env=environment.variables() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ids"] == ids
    assert found["eos"] == tokenizer.eos_token_id
    with torch.inference_mode():
        expected = policy(torch.tensor([ids])).logits[0]
    assert float((torch.tensor(found["logits"]) - expected).abs().max()) < largest


def test_quantizing_is_there(tiny_folder: Path) -> None:
    environment = environments.require("llama-cpp")
    code = "import llama_cpp; print(callable(llama_cpp.llama_model_quantize))"
    done = subprocess.run(
        [str(environment.python), "-c", code],
        env=environment.variables() | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"
