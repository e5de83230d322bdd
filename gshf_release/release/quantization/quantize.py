"""Make quantizations of a BF16 checkpoint folder and measure each one's loss.

The reference of a file is the BF16 of the same weights in the same engine: llama.cpp's own BF16 file for GGUF, transformers for
compressed-tensors. How far llama.cpp's BF16 stands from transformers' is a row of its own, so that no difference between
engines passes for a loss of quantization.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from gshf_release import environments
from gshf_release.data.hashing import sha256_file
from gshf_release.errors import ReleaseError
from gshf_release.models import checkpoints
from gshf_release.models.chat_tokenizer import render, stop_ids
from gshf_release.models.portability import make_portable
from gshf_release.release import chat_templates, rules
from gshf_release.release.quantization import compressed_work, job, logits, losses, schemes
from gshf_release.release.quantization.calibration_text import CalibrationText
from gshf_release.release.quantization.gguf import write_gguf
from gshf_release.release.quantization.schemes import K_QUANTS, PLAIN, Scheme
from gshf_release.run.context import Progress
from gshf_release.run.directory import read_json

SMOKE = "Name one colour of the sky."
SMOKE_TOKENS = 64
TOKENISED = 64
"""At most so many texts are tokenised by llama.cpp and by transformers."""
REFERENCE = "BF16"


@dataclass(frozen=True, slots=True)
class Work:
    """Holds what every quantization of one checkpoint needs."""

    checkpoint: Path
    name: str
    """How the files begin."""
    text: CalibrationText
    threads: int
    scratch: Path
    """A folder for references, as large as the logits of the text."""
    progress: Progress

    @property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config."""
        return read_json(self.checkpoint / "config.json")

    @property
    def vocabulary(self) -> int:
        """Length of a row of logits."""
        return int(self.config["vocab_size"])

    def reference(self, name: str) -> Path:
        """Return where the logits of a reference are."""
        return self.scratch / f"{name}.f32"


def make_gguf(
    work: Work, encodings: Sequence[str], output: Path, measured: Path, *, engine: str = ""
) -> list[dict[str, Any]]:
    """Write and measure GGUF files; return what is recorded of the files in `output`.

    With a K-quant among them, or `engine` `llama-cpp`, everything is measured in llama.cpp; else with transformers on the
    dequantised weights, for which no other environment is needed.

    Raises:
        ReleaseError: The checkpoint does not fit, or a file's template or EOS is not the checkpoint's.
        EngineError: llama.cpp is needed and not set up.
    """
    if engine != "llama-cpp" and not set(encodings) & set(K_QUANTS):
        return _make_plain(work, encodings, output, measured)
    environments.require("llama-cpp")
    _prepare(output, measured, work.scratch)
    plain = work.scratch / f"{work.name}-{REFERENCE}.gguf"
    write_gguf(work.checkpoint, plain, encoding=REFERENCE, name=work.name)
    _record_here(work, "transformers", work.checkpoint)
    ids = work.text.sequences
    own = work.reference("llama-cpp")
    _llama_cpp(work, "record", model=str(plain), sequences=ids, reference=str(own), vocabulary=work.vocabulary)
    files = [_measure_gguf(work, plain, REFERENCE, measured, {REFERENCE: own, losses.IMPLEMENTATION: None})]
    for done, encoding in enumerate(encodings, 1):
        path = output / f"{work.name}-{encoding}.gguf"
        if encoding == REFERENCE:
            shutil.copyfile(plain, path)
        elif encoding in PLAIN:
            write_gguf(work.checkpoint, path, encoding=encoding, name=work.name)
        else:
            _llama_cpp(work, "quantize", source=str(plain), output=str(path), encoding=encoding)
        if encoding != REFERENCE:
            files.append(_measure_gguf(work, path, encoding, measured, {REFERENCE: own}))
        work.progress(done, len(encodings), "files")
    _write_document(measured, work.text, files)
    return [entry for entry in files if (output / entry["name"]).is_file()]


def make_compressed(
    work: Work, scheme: Scheme, output: Path, measured: Path, *, calibration: CalibrationText | None, seed: int
) -> list[dict[str, Any]]:
    """Write and measure a checkpoint in the compressed-tensors format; return what is recorded of it.

    Raises:
        ReleaseError: The checkpoint does not fit.
        EngineError: llm-compressor's environment is not set up.
    """
    environments.require("quant")
    _prepare(output, measured, work.scratch)
    group = schemes.group_size(work.config) if scheme.kind == "gptq" else 0
    ids = work.text.sequences
    made = _compressed(
        work,
        "quantize",
        checkpoint=str(work.checkpoint),
        output=str(output),
        scheme=scheme.kind,
        sequences=calibration.sequences if calibration else [],
        group_size=group,
        seed=seed,
    )
    for extra in ("chat_template.jinja", "generation_config.json"):
        if (work.checkpoint / extra).is_file():
            shutil.copyfile(work.checkpoint / extra, output / extra)
    make_portable(output)
    templates_equal(work.checkpoint, chat_templates.template_of(output), output.name)
    own = work.reference("transformers-quant")
    common = {"sequences": ids, "vocabulary": work.vocabulary}
    _compressed(work, "record", checkpoint=str(work.checkpoint), reference=str(own), **common)
    files = []
    for model, row in ((work.checkpoint, REFERENCE), (output, scheme.label)):
        array = measured / f"{row}.npy"
        found = _compressed(
            work, "measure", model=str(model), references={str(own): str(array)}, **common, **_smoke(work)
        )
        weights = sorted(model.glob("*.safetensors"))
        how = {**made, **({"group size": str(group)} if group else {})} if row != REFERENCE else {}
        files.append(
            {
                "row": row,
                "name": "model.safetensors",
                "encoding": row,
                "size": sum(path.stat().st_size for path in weights),
                "sha256": sha256_file(weights[0]),
                "parameters": parameters(work.checkpoint),
                "engine": f"transformers {made['transformers']} in FP32",
                "made_with": ", ".join(f"{name} {value}" for name, value in how.items()),
                "calibration": calibration.as_json() if calibration and row != REFERENCE else None,
                "own": row == REFERENCE,
                "measured": {REFERENCE: array.name},
                "smoke": found["answer"],
            }
        )
    _write_document(measured, work.text, files)
    return files[1:]


def parameters(folder: Path) -> int:
    """Return how many weights the tensors of a folder hold, tied ones once."""
    headers = [rules.safetensors_header(path) for path in sorted(folder.glob("*.safetensors"))]
    return sum(prod(tensor["shape"]) for header in headers for tensor in header.values())


def templates_equal(checkpoint: Path, found: str | None, name: str) -> None:
    """Refuse a file whose chat template is not the checkpoint's, byte by byte.

    Raises:
        ReleaseError: It is another.
    """
    if (found or "") != (chat_templates.template_of(checkpoint) or ""):
        raise ReleaseError(f"{name}: its chat template is not that of the weights it was made from.")


def _make_plain(work: Work, encodings: Sequence[str], output: Path, measured: Path) -> list[dict[str, Any]]:
    """Write GGUF files and measure their dequantised weights with transformers."""
    _prepare(output, measured, work.scratch)
    _record_here(work, "transformers", work.checkpoint)
    files = []
    for done, encoding in enumerate(encodings, 1):
        path = output / f"{work.name}-{encoding}.gguf"
        write_gguf(work.checkpoint, path, encoding=encoding, name=work.name)
        templates_equal(work.checkpoint, chat_templates.gguf_template(path), path.name)
        model = checkpoints.load_model(path, "fp32")
        array = measured / f"{encoding}.npy"
        np.save(array, _compare_here(model, work))
        smoke = compressed_work.answer(model, str(work.checkpoint), **_smoke(work))
        found = _gguf_entry(work, path, encoding, f"transformers {_version('transformers')}, dequantised, in FP32")
        files.append(found | {"measured": {REFERENCE: array.name}, "own": False, "smoke": smoke})
        work.progress(done, len(encodings), "files")
    _write_document(measured, work.text, files)
    return files


def _measure_gguf(
    work: Work, path: Path, row: str, measured: Path, references: Mapping[str, Path | None]
) -> dict[str, Any]:
    """Measure one file in llama.cpp, and check that it reads text as the checkpoint does."""
    arrays = {baseline: measured / f"{row}{'' if baseline == REFERENCE else '-engine'}.npy" for baseline in references}
    logits_of = {base: file or work.reference("transformers") for base, file in references.items()}
    tokenizer = checkpoints.load_tokenizer(work.checkpoint)
    texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in work.text.sequences[:TOKENISED]]
    found = _llama_cpp(
        work,
        "measure",
        model=str(path),
        sequences=work.text.sequences,
        references={str(logits_of[baseline]): str(arrays[baseline]) for baseline in references},
        vocabulary=work.vocabulary,
        texts=texts,
        **_smoke(work),
    )
    templates_equal(work.checkpoint, found["template"], path.name)
    stops = stop_ids(tokenizer, checkpoints.load_generation_config(work.checkpoint))
    if found["eos"] not in stops:
        raise ReleaseError(f"{path.name}: llama.cpp ends at token {found['eos']}, the weights at {stops}.")
    expected = [[int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
    return _gguf_entry(work, path, row, f"llama.cpp of llama-cpp-python {found['version']}") | {
        "measured": {baseline: array.name for baseline, array in arrays.items()},
        "own": row == REFERENCE,
        "smoke": found["answer"],
        "prompts": _agreement(texts, expected, found["ids"]),
        "round_trip": {
            "equal": sum(a.strip() == b.strip() for a, b in zip(texts, found["round_trip"], strict=True)),
            "n": len(texts),
        },
    }


def _agreement(texts: Sequence[str], expected: Sequence[list[int]], found: Sequence[list[int]]) -> dict[str, Any]:
    """Return how many texts llama.cpp turns into the same ids, and where the first other one differs."""
    different = [place for place, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b]
    document: dict[str, Any] = {"equal": len(texts) - len(different), "n": len(texts)}
    if different:
        ours, theirs = expected[different[0]], found[different[0]]
        at = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        document["first_difference"] = {
            "token": at,
            "transformers": ours[at : at + 4],
            "llama.cpp": theirs[at : at + 4],
        }
    return document


def _gguf_entry(work: Work, path: Path, encoding: str, engine: str) -> dict[str, Any]:
    """Return what a GGUF file says of itself: size, hash, and the types of its tensors."""
    from gguf import GGUFReader

    tensors = GGUFReader(path).tensors
    types = {tensor.name: tensor.tensor_type.name for tensor in tensors}
    shapes = {tensor.name: [int(length) for length in reversed(tensor.shape)] for tensor in tensors}
    counts: dict[str, int] = {}
    for kind in types.values():
        counts[kind] = counts.get(kind, 0) + 1
    fallen = schemes.fallbacks(types, shapes) if encoding in K_QUANTS else {}
    made = "llama.cpp" if encoding in K_QUANTS else "gguf"
    reason = f"{schemes.SUPER_BLOCK} does not divide their rows"
    note = f"; {sum(fallen.values())} matrices fell back to {', '.join(fallen)}: {reason}" if fallen else ""
    return {
        "row": encoding,
        "name": path.name,
        "encoding": encoding,
        "size": path.stat().st_size,
        "sha256": sha256_file(path),
        "parameters": parameters(work.checkpoint),
        "engine": engine,
        "made_with": f"{made}{note}",
        "types": dict(sorted(counts.items())),
        "fallbacks": fallen,
        "prompts": None,
    }


def _prepare(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)


def _smoke(work: Work) -> dict[str, Any]:
    tokenizer = checkpoints.load_tokenizer(work.checkpoint)
    stops = stop_ids(tokenizer, checkpoints.load_generation_config(work.checkpoint))
    if tokenizer.chat_template:
        prompt = render(tokenizer, [{"role": "user", "content": SMOKE}])
    else:
        prompt = [int(token) for token in tokenizer(SMOKE)["input_ids"]]
    room = int(work.config.get("max_position_embeddings", 2**20)) - len(prompt) - 1
    return {"prompt": prompt, "limit": max(1, min(SMOKE_TOKENS, room)), "stops": stops}


def _record_here(work: Work, name: str, checkpoint: Path) -> None:
    """Write the logits of the BF16 weights, computed with in FP32 by this environment's transformers."""
    model = checkpoints.load_model(checkpoint, "rounded")
    found = work.reference(name)
    logits.record(lambda ids: compressed_work.logits_of(model, ids), work.text.sequences, found, work.vocabulary)


def _compare_here(model: Any, work: Work) -> Any:
    reference = work.reference("transformers")
    return logits.compare(
        lambda ids: compressed_work.logits_of(model, ids), work.text.sequences, reference, work.vocabulary
    )


def _llama_cpp(work: Work, function: str, **arguments: Any) -> Any:
    return job.call("llama-cpp", f"llama_cpp_work:{function}", work.threads, **arguments)


def _compressed(work: Work, function: str, **arguments: Any) -> Any:
    return job.call("quant", f"compressed_work:{function}", work.threads, **arguments)


def _write_document(measured: Path, text: CalibrationText, files: Sequence[Mapping[str, Any]]) -> None:
    document = {"text": text.as_json(), "files": list(files)}
    content = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    (measured / losses.DOCUMENT).write_text(content, encoding="utf-8")


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
