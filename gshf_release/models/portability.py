"""Rewrite the JSON files of a checkpoint folder so that transformers 4.57 and 5 read them alike.

transformers 5 names classes and keys that 4 does not know: a tokenizer of the class `TokenizersBackend` does not open there,
and `rope_parameters` is ignored, so that a model is computed with rotary frequencies that are not its own. Both read what is
written here. The 4 series is what many servers and trainers still pin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gshf_release.models.checkpoint_files import read_object

OF_LOADING = ("is_local", "local_files_only", "_name_or_path", "name_or_path")
"""Keys about how a tokenizer or model was loaded, which say something of this machine alone."""
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "min_p": None, "typical_p": 1.0}
"""Keys that mean nothing without `do_sample`, and the values that promise nothing."""


def make_portable(folder: Path) -> None:
    """Rewrite the configurations of a saved checkpoint where one of the two series would not read them."""
    for name, change in (
        ("config.json", model_config),
        ("tokenizer_config.json", tokenizer_config),
        ("generation_config.json", generation_config),
    ):
        path = folder / name
        if path.is_file():
            content = read_object(path)
            changed = change(content)
            if changed != content:
                path.write_text(json.dumps(changed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tokenizer_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer_config.json whose class exists in both, and whose further control tokens both know."""
    changed = _without(content, OF_LOADING)
    if changed.get("tokenizer_class") == "TokenizersBackend":
        changed["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(
        changed.get("extra_special_tokens"), list
    ):  # in 4, a mapping under this name and a list under the other
        changed["additional_special_tokens"] = changed.pop("extra_special_tokens")
    return changed


def model_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json that says the rotary frequencies in the words of both."""
    changed = _without(content, OF_LOADING)
    rope = changed.get("rope_parameters")
    if isinstance(rope, dict) and not any(isinstance(value, dict) for value in rope.values()):
        kinds = {name: value for name, value in rope.items() if name not in ("rope_theta", "partial_rotary_factor")}
        changed |= {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
        if kinds.get("rope_type", "default") != "default":
            changed["rope_scaling"] = kinds
    return changed


def generation_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a generation_config.json that samples if it says how: without `do_sample` it could not be saved again."""
    changed = dict(content)
    says = any(changed.get(name, usual) not in (usual, None) for name, usual in SAMPLING.items())
    if says and not changed.get("do_sample"):
        changed["do_sample"] = True
    return changed


def _without(content: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}
