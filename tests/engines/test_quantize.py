"""Quantizations in the environments that make them: opened again by llama.cpp, transformers and vLLM, losses in their order."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gshf_release import environments
from gshf_release.data.results import Cell, find
from gshf_release.models.checkpoints import load_tokenizer
from gshf_release.release.quantization import command, job, losses
from gshf_release.release.quantization.gguf import write_gguf
from tests import nasty, sentence_piece, tiny

pytestmark = pytest.mark.engines

GGUF = ("Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
OPEN = """
import json, sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
print(json.dumps(model(torch.tensor([json.loads(sys.argv[2])])).logits[0].argmax(-1).tolist()))
"""
SERVE = """
import json, os, sys
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
from vllm import LLM, SamplingParams
model = LLM(sys.argv[1], skip_tokenizer_init=True, enforce_eager=True, max_model_len=128, dtype="bfloat16")
prompt = {"prompt_token_ids": json.loads(sys.argv[2])}
made = model.generate([prompt], SamplingParams(max_tokens=4, temperature=0, ignore_eos=True, detokenize=False), use_tqdm=False)
print(json.dumps(list(made[0].outputs[0].token_ids)))
"""

HAS_4_BIT = """
import torch, vllm._custom_ops
from vllm.platforms import current_platform
print(not current_platform.is_cpu() or hasattr(torch.ops._C, "cpu_gemm_wna16"))
"""


def save_mistral(folder: Path) -> Path:
    """Save a tiny Mistral with a byte-level tokenizer."""
    tiny.save_ending(folder, **SHAPE)
    return _in_bf16(folder)


def save_llama(folder: Path) -> Path:
    """Save a tiny Llama with a SentencePiece tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, num_hidden_layers=2, bos_token_id=1, eos_token_id=2, initializer_range=0.08, **SHAPE
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    sentence_piece.tokenizer().save_pretrained(folder)
    return _in_bf16(folder)


def _in_bf16(folder: Path) -> Path:
    from gshf_release.models import checkpoints

    checkpoints.save(checkpoints.load_model(folder, "bf16"), load_tokenizer(folder), folder)
    return folder


@pytest.fixture(scope="module", params=[save_mistral, save_llama], ids=["mistral", "llama"])
def quantized(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, one_thread: None
) -> tuple[Path, Path, list[Cell]]:
    """Return a checkpoint, the folder of all its quantizations, and their cells."""
    save: Callable[[Path], Path] = request.param
    folder = tmp_path_factory.mktemp(save.__name__)
    text, calibration = folder / "text.txt", folder / "calibration.txt"
    text.write_text("\n".join(tiny.corpus()[::2]), encoding="utf-8")
    calibration.write_text("\n".join(tiny.corpus()[1::2]), encoding="utf-8")
    checkpoint = save(folder / "tiny")
    out, cells = command.quantize(
        checkpoint,
        [*(f"gguf:{name}" for name in GGUF), "fp8", "gptq:W4A16"],
        folder / "out",
        iteration=None,
        text=text,
        calibration=calibration,
        seed=0,
        threads=1,
        say=lambda line: None,
    )
    return checkpoint, out, cells


def value(cells: list[Cell], row: str, metric: str, **more: str) -> float:
    found = find(cells, row=row, metric=metric, **more)
    assert found is not None
    assert found.value is not None
    return found.value


def test_every_file_has_a_measured_loss_and_fewer_bits_lose_more(quantized: tuple[Path, Path, list[Cell]]) -> None:
    _, _, cells = quantized
    divergence = {row: value(cells, row, losses.KL) for row in (*GGUF, "FP8", "GPTQ-W4A16")}
    assert divergence["Q4_K_M"] > divergence["Q5_K_M"] > divergence["Q6_K"] > divergence["Q8_0"] > 0
    assert divergence["GPTQ-W4A16"] > divergence["FP8"] > 0
    for row, mean in divergence.items():
        assert value(cells, row, losses.KL_TAIL) >= mean
        assert 0 < value(cells, row, losses.SAME_TOP) <= 100
        assert value(cells, row, losses.PERPLEXITY) > 1
    assert value(cells, "Q4_K_M", losses.SIZE) < value(cells, "Q8_0", losses.SIZE)


def test_the_engines_own_difference_is_smaller_than_a_loss(quantized: tuple[Path, Path, list[Cell]]) -> None:
    _, _, cells = quantized
    engine = value(cells, "BF16", losses.KL, baseline=losses.IMPLEMENTATION)
    assert 0 <= engine < value(cells, "Q4_K_M", losses.KL)


def test_rows_that_256_divides_need_no_fallback(quantized: tuple[Path, Path, list[Cell]]) -> None:
    _, out, _ = quantized
    document = json.loads((out / "tiny-GGUF" / "measured" / "measured.json").read_text(encoding="utf-8"))
    assert all(file["fallbacks"] == {} for file in document["files"])
    assert all(file["prompts"]["equal"] == file["prompts"]["n"] for file in document["files"])


def test_the_same_command_makes_nothing_again(quantized: tuple[Path, Path, list[Cell]]) -> None:
    checkpoint, out, _ = quantized
    before = (out / "tiny-GGUF" / "tiny-Q8_0.gguf").stat().st_mtime_ns
    text = out.parent / "text.txt"
    command.quantize(
        checkpoint,
        [f"gguf:{name}" for name in GGUF],
        out,
        iteration=None,
        text=text,
        calibration=None,
        seed=0,
        threads=1,
        say=lambda line: None,
    )
    assert (out / "tiny-GGUF" / "tiny-Q8_0.gguf").stat().st_mtime_ns == before


@pytest.mark.parametrize(("environment", "code"), [("quant", OPEN), ("vllm", SERVE)], ids=["transformers", "vllm"])
@pytest.mark.parametrize("name", ["tiny-FP8", "tiny-GPTQ-W4A16"])
def test_compressed_weights_open_elsewhere(
    quantized: tuple[Path, Path, list[Cell]], name: str, environment: str, code: str
) -> None:
    _, out, _ = quantized
    if environment == "vllm" and "W4" in name and last_line(environment, HAS_4_BIT) == "False":
        pytest.skip("vLLM's CPU build has no 4-bit kernel for processors without AVX-512")
    assert len(json.loads(last_line(environment, code, str(out / name), json.dumps([1, 300, 310, 320])))) == 4


def last_line(environment: str, code: str, *arguments: str) -> str:
    """Run code in an environment and return the last line that it printed."""
    found = environments.require(environment)
    done = subprocess.run(
        [str(found.python), "-c", code, *arguments],
        env=found.variables() | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("save", [save_mistral, save_llama], ids=["byte-level", "sentence-piece"])
def test_nasty_conversations_have_the_same_ids_and_come_back(
    save: Callable[[Path], Path], tmp_path: Path, one_thread: None
) -> None:
    checkpoint = save(tmp_path / "tiny")
    write_gguf(checkpoint, tmp_path / "tiny.gguf", encoding="F32", name="Tiny")
    tokenizer = load_tokenizer(checkpoint)
    texts = [tokenizer.apply_chat_template(conversation, tokenize=False) for conversation in nasty.conversations()]
    found = job.call(
        "llama-cpp",
        "llama_cpp_work:measure",
        1,
        model=str(tmp_path / "tiny.gguf"),
        sequences=[[1, 300]],
        references={},
        vocabulary=512,
        texts=texts,
        prompt=[1, 300],
        limit=1,
        stops=[2],
    )
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    different = [text for text, ours, theirs in zip(texts, expected, found["ids"], strict=True) if ours != theirs]
    assert different == []
    decoded = [tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in expected]
    assert [back.strip() for back in found["round_trip"]] == [text.strip() for text in decoded]
    assert found["template"] == tokenizer.chat_template
    assert found["eos"] == tokenizer.eos_token_id
