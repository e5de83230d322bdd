"""Run llama.cpp in its own environment: quantize, score a text, tokenise, generate. All arguments are JSON values."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gshf_release.errors import ReleaseError
from gshf_release.release.quantization import logits

TYPES = {"Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
"""Numbers of `llama_ftype` in llama.h."""


def quantize(source: str, output: str, encoding: str) -> dict[str, Any]:
    """Quantize a BF16 GGUF file into another; return the versions that did it.

    Raises:
        ReleaseError: llama.cpp refused.
    """
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = TYPES[encoding], int(os.environ.get("OMP_NUM_THREADS", "1"))
    partial = f"{output}.partial"
    code = llama_cpp.llama_model_quantize(source.encode(), partial.encode(), ctypes.byref(parameters))
    if code != 0:
        Path(partial).unlink(missing_ok=True)
        raise ReleaseError(f"llama.cpp could not quantize {Path(source).name} to {encoding} (code {code}).")
    Path(partial).replace(output)
    return {"llama-cpp-python": llama_cpp.__version__}


def record(model: str, sequences: list[list[int]], reference: str, vocabulary: int) -> dict[str, Any]:
    """Write the logits of a text as the reference of others."""
    engine = _open(model, sequences)
    logits.record(lambda ids: _logits(engine, ids), sequences, Path(reference), vocabulary)
    return {}


def measure(
    model: str, sequences: list[list[int]], references: dict[str, str], vocabulary: int, texts: list[str], **smoke: Any
) -> dict[str, Any]:
    """Score a text against each reference, tokenise texts, and let the model answer once.

    Args:
        model: A GGUF file.
        sequences: The text to score, as token ids.
        references: File of reference logits to the file that gets the measured tokens.
        vocabulary: Length of a row of logits.
        texts: What to tokenise, control tokens parsed.
        smoke: `prompt` ids and `limit`, for `_answer`.

    Returns:
        `ids` and `round_trip` of each text, `eos`, `template`, and the `answer`.
    """
    import llama_cpp

    engine = _open(model, [*sequences, [0] * (len(smoke["prompt"]) + smoke["limit"])])
    if references:
        cached = {tuple(ids): _logits(engine, ids) for ids in sequences} if len(references) > 1 else {}

        def computed(ids: Sequence[int]) -> Any:
            return cached[tuple(ids)] if cached else _logits(engine, ids)

        for reference, output in references.items():
            np.save(output, logits.compare(computed, sequences, Path(reference), vocabulary))
    ids = [engine.tokenize(text.encode(), add_bos=False, special=True) for text in texts]
    return {
        "ids": ids,
        "round_trip": [engine.detokenize(found, special=True).decode("utf-8", "replace") for found in ids],
        "eos": engine.token_eos(),
        "template": engine.metadata.get("tokenizer.chat_template", ""),
        "answer": _answer(engine, **smoke),
        "version": llama_cpp.__version__,
    }


def _open(model: str, sequences: Sequence[Sequence[int]]) -> Any:
    import llama_cpp

    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    longest = max(len(sequence) for sequence in sequences)
    try:
        return llama_cpp.Llama(
            model, n_ctx=longest + 1, n_threads=threads, n_threads_batch=threads, logits_all=True, verbose=False
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise ReleaseError(f"llama.cpp cannot open {Path(model).name}: {error}.") from error


def _logits(engine: Any, ids: Sequence[int]) -> Any:
    engine.reset()
    engine.eval(list(ids))
    return np.array(engine.scores[: len(ids)])


def _answer(engine: Any, prompt: list[int], limit: int, stops: list[int]) -> dict[str, Any]:
    """Return a greedy answer and whether an end token ended it."""
    found: list[int] = []
    engine.reset()
    for token in engine.generate(prompt, temp=0.0):
        if token in stops or len(found) == limit:
            break
        found.append(int(token))
    else:
        token = -1
    text = engine.detokenize(found).decode("utf-8", "replace")
    return {"text": text, "tokens": len(found), "stopped": token in stops}
