"""Parse recipes and profiles from YAML and `--set key=value`; every mistake is one line with the key and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gshf_release.data import documents
from gshf_release.data.key_masking import without_password
from gshf_release.errors import RecipeError

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
PositiveInt = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""Larger numbers fit no table and no library that would hold them."""
Count = Annotated[int, Field(ge=1, le=10_000)]
"""Of what is declared or started one by one: iterations, responses to a prompt, processes."""
Share = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """Frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        RecipeError: The file is not YAML, or not a mapping.
    """
    try:
        content = documents.read_yaml(path)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise RecipeError(f"{path} {_predicate(error)}.") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold keys and values, not {type(content).__name__}.")
    return content


def parse(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """Return `content` as `model`; every mistake becomes one line that names the key and the way out."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{where}: {'; '.join(_explain(error, model))}.") from error


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one dotted `key=value`; the value is read as YAML.

    Raises:
        RecipeError: It is not of that form, or goes through a key that holds a value.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set {override!r} is not of the form key=value.", hint="Example: --set loop.iterations=2")
    *parents, last = key.strip().split(".")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise RecipeError(f"--set {override!r}: {parent!r} is a value, not a section.")
    try:
        section[last] = documents.parse_yaml(text)
    except ValueError as error:
        raise RecipeError(f"--set {override!r}: the value {_predicate(error)}.") from error


def _explain(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        location = [str(part) for part in problem["loc"]]
        key = ".".join(location) or "recipe"
        if problem["type"] == "extra_forbidden":
            yield _unknown_key(location, model)
        elif problem["type"] == "missing":
            yield f"key {key!r} is missing"
        else:
            yield f"{key}: {problem['msg'].removeprefix('Value error, ')} (got {_shown(problem['input'])})"


def _predicate(error: ValueError) -> str:
    """Return what `documents` says of a file as what follows its name: `it is not ...` without the `it`."""
    return str(error).removeprefix("it ")


def _shown(value: Any) -> str:
    text = "the whole section" if isinstance(value, dict | BaseModel) else without_password(repr(value))
    return text if len(text) < 60 else text[:57] + "..."


def _unknown_key(location: list[str], model: type[BaseModel]) -> str:
    *parents, last = location
    section: type[BaseModel] = model
    for parent in parents:
        if not parent.isdigit():  # a position in a list of sections
            section = _section_of(section.model_fields[parent].annotation)
    nearest = difflib.get_close_matches(last, section.model_fields, n=1)
    everywhere = difflib.get_close_matches(last, _all_keys(model), n=1)
    if nearest:
        return f"unknown key {'.'.join(location)!r}; did you mean {'.'.join([*parents, nearest[0]])!r}?"
    if everywhere:
        path = next(path for path in _paths(model) if path.split(".")[-1] == everywhere[0])
        return f"unknown key {'.'.join(location)!r}; did you mean {path!r}?"
    return f"unknown key {'.'.join(location)!r}; valid here: {', '.join(section.model_fields)}"


def _section_of(annotation: Any) -> type[BaseModel]:
    """Return the section that a key holds, or a list of which it holds."""
    section: type[BaseModel] = next(iter(get_args(annotation)), annotation)
    return section


def _all_keys(model: type[BaseModel]) -> list[str]:
    return [path.split(".")[-1] for path in _paths(model)]


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _paths(annotation, f"{prefix}{name}.")
