"""What may be published: an allow-list of file types, no pickles, no paths of this machine, every weight in BF16."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gshf_release.errors import ReleaseError

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
)
TEXT = (".json", ".jinja", ".md", ".txt", ".yaml", ".csv")
HOME_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|tmp|var|mnt|work|scratch)/[\w.@-]+")
TOKEN = re.compile(
    r"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY"
)
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_repository(repository: str) -> None:
    """Refuse a name that no repository of the Hub can have; it also names a folder of the run.

    Raises:
        ReleaseError: It is not of the form OWNER/NAME.
    """
    if not REPOSITORY.fullmatch(repository):
        raise ReleaseError(f"{repository!r} is not of the form OWNER/NAME.")


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything that must not be published.

    Raises:
        ReleaseError: Names the file and the reason.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ReleaseError(f"{name} is a symbolic link; a release holds files only.")
        if path.is_dir():
            continue
        if path.suffix not in ALLOWED:
            raise ReleaseError(
                f"{name} must not be published: {path.suffix or 'no ending'} is not on the list of file types."
            )
        if path.suffix in TEXT and path.name != "tokenizer.json":
            _check_text(name, path.read_text(encoding="utf-8"))


def _check_text(name: str, text: str) -> None:
    if TOKEN.search(text):
        raise ReleaseError(f"{name} holds what looks like an access token or private key.", hint="Remove it.")
    found = HOME_PATH.search(text)
    if found:
        raise ReleaseError(
            f"{name} names a path of this machine: {found.group()}.", hint="Use relative paths or Hub ids."
        )


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file without its metadata: `{tensor: {dtype, shape, data_offsets}}`.

    Raises:
        ReleaseError: The file has no valid header, or its tensors do not fill it exactly.
    """
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if not 0 < size <= path.stat().st_size - 8:
            raise ReleaseError(f"{path.name} is not a safetensors file.")
        try:
            header: dict[str, Any] = json.loads(stream.read(size))
        except ValueError as error:
            raise ReleaseError(f"{path.name} has a damaged safetensors header.") from error
    header.pop("__metadata__", None)
    position = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = tensor["data_offsets"]
        if start != position:
            raise ReleaseError(f"{path.name}: tensor {name} does not follow the one before it.")
        position = end
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
    if index.exists() and json.loads(index.read_text(encoding="utf-8"))["weight_map"] != tensors:
        raise ReleaseError(f"{index.name} and the shards do not name the same tensors.")
    if len(counts) > 1 and not index.exists():
        raise ReleaseError(f"{folder} holds {len(counts)} shards and no {index.name}.")
    return counts
