"""A release folder made by hand in a few milliseconds: no model, no training, but all that a release says about itself."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gshf_release.data import statistics
from gshf_release.data.records import Judgment
from gshf_release.data.results import Cell, cell
from gshf_release.release import chat_templates, eval_results, manifest

TEMPLATE = "{% for message in messages %}{{ message['content'] }}</s>{% endfor %}"
PREFERENCES = (1.0, 1.0, 0.0, 0.5)
SCORES = ((0.5, 0.25), (1.0, 0.5), (0.0, 0.25), (0.25, 0.25))
"""Of the model's and of the baseline's answer; the mean difference is 0.125."""


def write_safetensors(path: Path, tensors: Mapping[str, int], dtype: str = "BF16", **metadata: str) -> None:
    """Write tensors of that many BF16 (or F32) zeros and a header with `metadata`."""
    width = {"BF16": 2, "F32": 4}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    position = 0
    for name, count in tensors.items():
        header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [position, position + width * count]}
        position += width * count
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(position))


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def checkpoint(folder: Path, *, tied: bool = False, **metadata: str) -> Path:
    """Write the files of a checkpoint, with zeros for weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"model.embed_tokens.weight": 8, "model.norm.weight": 4} | ({} if tied else {"lm_head.weight": 8})
    write_safetensors(folder / "model.safetensors", tensors, **metadata)
    config = {"architectures": ["MistralForCausalLM"], "eos_token_id": 2, "tie_word_embeddings": tied}
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": [2]})
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": 2, "content": "</s>", **flags}]
    model = {"type": "WordLevel", "vocab": {"a": 0, "</s>": 2}, "unk_token": "a"}
    write_json(folder / "tokenizer.json", {"version": "1.0", "added_tokens": added, "model": model})
    write_json(folder / "tokenizer_config.json", {"eos_token": "</s>"})
    (folder / chat_templates.FILE).write_text(TEMPLATE, encoding="utf-8")
    return folder


def cells() -> list[Cell]:
    """Return the cells that the judgments give, and one that they do not."""
    rate, gain = statistics.win_rate(PREFERENCES), statistics.mean([model - base for model, base in SCORES])
    place = {"table": "test", "row": "iteration-1", "decoding": "greedy", "baseline": "base"}
    return [
        cell(rate, metric="win rate", judge="stand-in", unit="%", **place),
        cell(gain, metric="gain over base", judge="second-scorer", **place),
        Cell(table="test", row="iteration-1", metric="length", value=41.5, decoding="greedy"),
    ]


def card(found: list[Cell], repository: str = "tester/made") -> str:
    """Return a card that shows the cells."""
    rate, gain, length = found
    args = {"judge": rate.judge, "baseline": "base", "decoding": "greedy", "iteration": 1, "n": rate.n}
    metric = {"type": "win_rate", "value": round(float(rate.value or 0), 4), "args": args}
    result = {
        "task": {"type": "text-generation"},
        "dataset": {"type": "prompts", "name": "prompts"},
        "metrics": [metric],
    }
    metadata = {"license": "mit", "model-index": [{"name": repository, "results": [result]}]}
    row = (
        f"| iteration-1 | {rate.value:.1f} ± {rate.standard_error:.1f} "
        f"| {gain.value:.2f} ± {gain.standard_error:.2f} | {length.value:.0f} | – |"
    )
    return (
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n# Made\n\n## Results: measured here\n\n"
        f"| model | win rate % | gain | tokens | none |\n| --- | --- | --- | --- | --- |\n{row}\n\n"
        "## Results: reported elsewhere\n\n| model | win rate |\n| --- | --- |\n| iteration-1 | 99.9 |\n"
    )


def release(folder: Path, *, iteration: int = 1, repository: str = "tester/made", **facts: Any) -> Path:
    """Write a whole release folder with its manifest."""
    checkpoint(folder, iteration=str(iteration))
    found = cells()
    rows = [
        Judgment(f"{number:016x}", "greedy", preference, model, base, "stand-in")
        for number, (preference, (model, base)) in enumerate(zip(PREFERENCES, SCORES, strict=True))
    ]
    Judgment.write(rows, folder / "judgments.parquet")
    eval_results.write_eval_results(folder, found, [("iteration-1/test/judgments", folder / "judgments.parquet")])
    (folder / "judgments.parquet").unlink()
    (folder / "README.md").write_text(card(found, repository), encoding="utf-8")
    manifest.write_release_manifest(
        folder, {"iteration": iteration, "chat_template_sha256": chat_templates.sha256(folder), **facts}
    )
    return folder


def releases(root: Path, name: str = "made", iterations: int = 2) -> Path:
    """Write the folders of several iterations as a run's `release` holds them; return that folder."""
    for number in range(1, iterations + 1):
        release(root / name / f"iter-{number}", iteration=number, repository=f"tester/{name}")
    return root
