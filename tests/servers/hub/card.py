"""Checks of a card's YAML front matter: the part of the Hub's rules that its documentation states."""

import re
from typing import Any

import yaml

FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
LICENSES = frozenset(
    {
        *("apache-2.0", "mit", "bsd-3-clause", "unlicense", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0"),
        *("cc0-1.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
        *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "gemma", "openrail", "odc-by"),
        *("unknown", "other"),
    }
)
BASE_MODEL_RELATIONS = frozenset({"adapter", "merge", "quantized", "finetune"})
EMPTY_METADATA = "empty or missing yaml metadata in repo card"


def front_matter(content: str) -> dict[str, Any]:
    """The metadata of a card, empty if it has none.

    Raises:
        ValueError: the text between the `---` lines is not a YAML mapping.
    """
    match = FRONT_MATTER.match(content)
    if match is None:
        return {}
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise ValueError(f"front matter is not YAML: {error}") from error
    if metadata is not None and not isinstance(metadata, dict):
        raise ValueError(f"front matter must be a mapping, got {type(metadata).__name__}")
    return metadata or {}


def card_errors(content: str, repo_type: str) -> list[str]:
    """What the Hub would refuse in a card, one line each."""
    try:
        metadata = front_matter(content)
    except ValueError as error:
        return [str(error)]
    errors = _value_errors(metadata)
    return errors + _model_index_errors(metadata.get("model-index")) if repo_type == "model" else errors


def card_warnings(content: str) -> list[str]:
    """What the Hub accepts with a remark; call it only on a card without errors."""
    return [] if front_matter(content) else [EMPTY_METADATA]


def _value_errors(metadata: dict[str, Any]) -> list[str]:
    errors = []
    licenses = metadata.get("license", [])
    for license_id in licenses if isinstance(licenses, list) else [licenses]:
        if license_id not in LICENSES:
            errors.append(f'"license" must be one of the known licenses, got {license_id!r}')
    relation = metadata.get("base_model_relation")
    if relation is not None and relation not in BASE_MODEL_RELATIONS:
        errors.append(f'"base_model_relation" must be one of {sorted(BASE_MODEL_RELATIONS)}, got {relation!r}')
    return errors


def _model_index_errors(model_index: object) -> list[str]:
    """`model-index` as specified: a list of models, each with results of task, dataset and metrics."""
    if model_index is None:
        return []
    if not isinstance(model_index, list):
        return ['"model-index" must be a list']
    errors = []
    for number, model in enumerate(model_index):
        where = f"model-index[{number}]"
        errors += _missing(model, where, ("name", "results"))
        for index, result in enumerate(_list_of(model, "results")):
            errors += _result_errors(result, f"{where}.results[{index}]")
    return errors


def _result_errors(result: object, where: str) -> list[str]:
    errors = _missing(result, where, ("task", "dataset", "metrics"))
    if not isinstance(result, dict):
        return errors
    if "task" in result:
        errors += _missing(result["task"], f"{where}.task", ("type",))
    if "dataset" in result:
        errors += _missing(result["dataset"], f"{where}.dataset", ("type", "name"))
    for index, metric in enumerate(_list_of(result, "metrics")):
        errors += _missing(metric, f"{where}.metrics[{index}]", ("type", "value"))
    if "source" in result:
        errors += _missing(result["source"], f"{where}.source", ("url",))
    return errors


def _missing(value: object, where: str, keys: tuple[str, ...]) -> list[str]:
    if not isinstance(value, dict):
        return [f'"{where}" must be a mapping']
    return [f'"{where}.{key}" is required' for key in keys if value.get(key) is None]


def _list_of(value: object, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []
