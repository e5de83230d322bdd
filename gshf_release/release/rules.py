"""Check what may be published: an allow-list of file types, no pickles, no training state, no secrets, all weights in BF16."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gshf_release.data import documents
from gshf_release.errors import CheckpointError, GshfError, ReleaseError
from gshf_release.models.checkpoint_files import read_object, refuse_code
from gshf_release.recipe import AllowedFinding
from gshf_release.release import secrets
from gshf_release.run.directory import ADOPTED, RunDirectory, is_adopted

ALLOWED = (
    ".safetensors",
    ".gguf",
    ".json",
    ".jinja",
    ".md",
    ".model",
    ".txt",
    ".png",
    ".svg",
    ".yaml",
    ".csv",
    ".parquet",
    ".jsonl",
    ".sig",
)
TEXT = (".json", ".jsonl", ".jinja", ".md", ".txt", ".yaml", ".csv", ".svg", ".sig")
LARGEST_FILE = 200 * 10**9
"""Bytes. The Hub recommends files below 200 GB (hub-docs, storage limits); larger weights belong into shards."""
LARGEST_HEADER = 10**8
"""Bytes; the safetensors library refuses longer ones."""
MOST_FILES = 10_000
"""Files in one folder: the Hub's limit for a folder of a repository (hub-docs, repository recommendations)."""
TRAINING_STATE = re.compile(
    r"(?i)(?:^|/)(?:optimi[sz]er|scheduler|rng_state|trainer_state|training_args|scaler|global_step|latest$|zero_pp_rank)"
)
STATE_TENSOR = re.compile(r"(?:^|\.)(?:exp_avg(?:_sq)?|momentum_buffer|optimizer|state_step|max_exp_avg_sq)(?:\.|$)")
BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "F16": 16, "BF16": 16, "I16": 16, "I8": 8, "U8": 8, "F8_E4M3": 8}
"""Of one value, by dtype in the header; other dtypes are not checked against their shape."""
FIRST_BYTES = {".gguf": b"GGUF", ".parquet": b"PAR1", ".png": b"\x89PNG"}
PICKLE = re.compile(rb"\x80[\x02-\x05]")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def check_repository(repository: str) -> None:
    """Refuse a name that no repository of the Hub can have; it also names a folder of the run.

    Raises:
        ReleaseError: It is not of the form OWNER/NAME.
    """
    if not REPOSITORY.fullmatch(repository):
        raise ReleaseError(f"{repository!r} is not of the form OWNER/NAME.")


def check_name(name: str, what: str) -> None:
    """Refuse a name or a tag that could leave its folder, its line of a card or its place in a code block.

    Args:
        name: The name of a repository without its owner, or a tag.
        what: How the message calls it.

    Raises:
        ReleaseError: It holds anything but letters, digits, `.`, `_` and `-`, or no Hub takes it as a tag.
    """
    if not NAME.fullmatch(name) or ".." in name or name.endswith((".", ".lock")):
        raise ReleaseError(
            f"{name!r} cannot be {what}: only letters, digits, '.', '_' and '-' may stand there.",
            hint="Example: v1",
        )


def check_folder(folder: Path, allowed: Sequence[AllowedFinding] = ()) -> None:
    """Refuse a folder that holds anything that must not be published.

    Args:
        folder: A release folder.
        allowed: What the secret scan would find and the releaser declares to be harmless.

    Raises:
        ReleaseError: Names the file and the reason.
    """
    paths = sorted(path for path in folder.rglob("*") if ".cache" not in path.relative_to(folder).parts)
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ReleaseError(f"{name} is a symbolic link; a release holds files only.")
        if path.is_file():
            _check_file(path, name)
    refuse_code(folder)
    if len(paths) > MOST_FILES:
        raise ReleaseError(f"{folder} holds {len(paths)} files; the Hub takes {MOST_FILES} in a folder.")
    secrets.check_folder(folder, allowed)


def forbidden(folder: Path) -> list[str]:
    """Return a line for each file that no release may hold by its name, its first bytes or the code it names."""
    wrong = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        name = path.relative_to(folder).as_posix()
        try:
            if ".cache" not in path.relative_to(folder).parts:
                _check_file(path, name)
        except GshfError as error:
            wrong.append(error.message)
    try:
        refuse_code(folder)
    except CheckpointError as error:
        wrong.append(error.message)
    return wrong


def _check_file(path: Path, name: str) -> None:
    """Refuse a file by its name, its size or its first bytes: an ending is only a promise."""
    if TRAINING_STATE.search(name):
        raise ReleaseError(f"{name} must not be published: it is a state of training, not of the model.")
    if path.suffix not in ALLOWED and name != ".gitattributes":
        raise ReleaseError(
            f"{name} must not be published: {path.suffix or 'no ending'} is not on the list of file types."
        )
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ReleaseError(f"{name} has {size / 1e9:.0f} GB; the Hub takes files up to {LARGEST_FILE / 1e9:.0f} GB.")
    with path.open("rb") as stream:
        start = stream.read(4)
    if PICKLE.match(start) or start[:2] == b"PK":
        raise ReleaseError(f"{name} must not be published: by its first bytes it is a pickle or an archive.")
    if path.suffix in FIRST_BYTES and start != FIRST_BYTES[path.suffix]:
        raise ReleaseError(f"{name} must not be published: it does not begin as a {path.suffix[1:]} file.")
    if path.suffix in TEXT:
        _check_text(path, name)
    elif path.suffix == ".safetensors":
        states = [tensor for tensor in safetensors_header(path) if STATE_TENSOR.search(tensor)]
        if states:
            raise ReleaseError(f"{name} must not be published: tensor {states[0]} is a state of the optimiser.")


def _check_text(path: Path, name: str) -> None:
    """Refuse text that a scan for secrets could not read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{name} is not UTF-8 text.") from error
    if "\0" in text:
        raise ReleaseError(f"{name} holds a zero byte, so it is no text.")


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file without its metadata: `{tensor: {dtype, shape, data_offsets}}`.

    Raises:
        ReleaseError: The file has no valid header, or its tensors do not fill it exactly.
    """
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if not 0 < size <= min(path.stat().st_size - 8, LARGEST_HEADER):
            raise ReleaseError(f"{path.name} is not a safetensors file.")
        try:
            header: dict[str, Any] = dict(documents.parse_json(stream.read(size).decode("utf-8")))
        except (ValueError, TypeError) as error:
            raise ReleaseError(f"{path.name} has a damaged safetensors header.") from error
    header.pop("__metadata__", None)
    position = 0
    try:
        for name, tensor in sorted(header.items(), key=lambda item: list(item[1]["data_offsets"])):
            start, end = tensor["data_offsets"]
            if start != position:
                raise ReleaseError(f"{path.name}: tensor {name} does not follow the one before it.")
            bits = BITS.get(tensor["dtype"])
            if bits is not None and math.prod(tensor["shape"]) * bits != 8 * (end - start):
                raise ReleaseError(
                    f"{path.name}: tensor {name} has the shape {tensor['shape']} and {end - start} bytes."
                )
            position = end
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ReleaseError):
            raise
        raise ReleaseError(f"{path.name} has a damaged safetensors header.") from error
    if position != path.stat().st_size - 8 - size:
        raise ReleaseError(f"{path.name} is cut: its tensors need {position} bytes.")
    return header


def check_dtype(folder: Path, dtype: str = "BF16") -> dict[str, int]:
    """Check every tensor's dtype in the headers and that shards and index agree; return `{file: tensor count}`.

    Raises:
        ReleaseError: A tensor has another dtype, a shard is missing, or a tensor is not in the index.
    """
    counts, tensors = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        header = safetensors_header(path)
        for name, tensor in header.items():
            if tensor["dtype"] != dtype:
                raise ReleaseError(f"{path.name}: tensor {name} is {tensor['dtype']}, not {dtype}.")
            tensors[name] = path.name
        counts[path.name] = len(header)
    if not counts:
        raise ReleaseError(f"{folder} holds no safetensors file.")
    index = folder / "model.safetensors.index.json"
    if index.exists():
        _check_index(index, tensors)
    if len(counts) > 1 and not index.exists():
        raise ReleaseError(f"{folder} holds {len(counts)} shards and no {index.name}.")
    return counts


def _check_index(index: Path, tensors: dict[str, str]) -> None:
    """Compare the index with the shards both ways."""
    try:
        listed = dict(read_object(index)["weight_map"])
    except (CheckpointError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{index.name} is damaged.") from error
    wrong = sorted(name for name in set(listed) | set(tensors) if listed.get(name) != tensors.get(name))
    if wrong:
        raise ReleaseError(f"{index.name} and the shards do not name the same tensors, for example {wrong[0]}.")


PUBLISH = "publish {checkpoint} --facts FILE --to OWNER/NAME"


def require_own(run: RunDirectory, instead: str = PUBLISH) -> None:
    """Refuse an adopted run where a training of its own is wanted: its recipe says nothing of how the checkpoint was made.

    Args:
        run: The run.
        instead: The command that does with its `{checkpoint}` what was wanted.

    Raises:
        ReleaseError: Names that command.
    """
    if not is_adopted(run):
        return
    checkpoint = next(iter(sorted(run.path.glob(f"{ADOPTED}*/model"))), None)
    raise ReleaseError(
        f"{run.path} was adopted from other tools; it has no iterations of its own.",
        hint="It holds no checkpoint either."
        if checkpoint is None
        else f"Take its checkpoint: gshf-release {instead.format(checkpoint=checkpoint)}",
    )
