"""The body of a commit: newline-delimited JSON, a header line and then one line per operation."""

import base64
import binascii
import json
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from tests.servers.hub.card import card_errors
from tests.servers.hub.errors import NOTHING_BY_THAT_NAME, HubError, entry_not_found
from tests.servers.hub.messages import SHA256, Message
from tests.servers.hub.store import REGULAR_FILE_LIMIT, Commit, HubStore, Repository, StoredFile

CARD_PATH = "README.md"


class Header(Message):
    """Title and description; `parent_commit` is what the client believes to be the head."""

    summary: str = Field(min_length=1)
    description: str = ""
    parent_commit: str | None = None


class FileContent(Message):
    """A small file, inside the commit."""

    path: str
    content: str
    encoding: Literal["base64"]


class LfsReference(Message):
    """A large file that was uploaded before; a copy inside the repository comes without its size."""

    path: str
    algo: Literal["sha256"]
    oid: str = Field(pattern=SHA256)
    size: int | None = None


class Deletion(Message):
    """A file or folder to remove."""

    path: str


class HeaderLine(BaseModel):
    """First line."""

    key: Literal["header"]
    value: Header


class FileLine(BaseModel):
    """Adds or replaces a small file."""

    key: Literal["file"]
    value: FileContent


class LfsLine(BaseModel):
    """Adds or replaces a large file."""

    key: Literal["lfsFile"]
    value: LfsReference


class DeletionLine(BaseModel):
    """Removes a file or a folder."""

    key: Literal["deletedFile", "deletedFolder"]
    value: Deletion


Line = Annotated[HeaderLine | FileLine | LfsLine | DeletionLine, Field(discriminator="key")]
_LINE: TypeAdapter[HeaderLine | FileLine | LfsLine | DeletionLine] = TypeAdapter(Line)
Operation = FileLine | LfsLine | DeletionLine


def parse_commit(body: bytes) -> tuple[Header, list[Operation]]:
    """Header and operations of a commit.

    Raises:
        HubError: 400 naming the line that is not understood.
    """
    header: Header | None = None
    operations: list[Operation] = []
    for number, text in enumerate(body.splitlines(), start=1):
        try:
            line = _LINE.validate_python(json.loads(text))
        except (ValueError, ValidationError) as error:
            raise HubError(400, f"Line {number} of the commit is not understood: {error}") from error
        if isinstance(line, HeaderLine):
            header = line.value
        else:
            _check_path(line.value.path)
            operations.append(line)
    if header is None:
        raise HubError(400, "The commit has no header line")
    return header, operations


def planned_changes(
    operations: list[Operation], head: Commit, repository: Repository, store: HubStore
) -> dict[str, StoredFile | None]:
    """What a commit changes: path to its new file, or to None where it is deleted.

    Nothing of the repository is touched here, so a refusal in the middle leaves no half of a commit.
    """
    changes: dict[str, StoredFile | None] = {}
    for operation in operations:
        if isinstance(operation, FileLine):
            changes[operation.value.path] = _small_file(operation.value, repository, store)
        elif isinstance(operation, LfsLine):
            changes[operation.value.path] = _large_file(operation.value, repository, store)
        else:
            changes.update(dict.fromkeys(_deleted_paths(operation, head)))
    return changes


def _small_file(value: FileContent, repository: Repository, store: HubStore) -> StoredFile:
    try:
        content = base64.b64decode(value.content, validate=True)
    except binascii.Error as error:
        raise HubError(400, f"{value.path} is not base64: {error}") from error
    if len(content) > REGULAR_FILE_LIMIT:
        raise HubError(400, f"{value.path} has {len(content)} bytes: files above 10 MiB must go through LFS")
    if value.path == CARD_PATH and (errors := card_errors(content.decode(errors="replace"), repository.kind)):
        raise HubError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
    return store.objects.write(content)


def _large_file(value: LfsReference, repository: Repository, store: HubStore) -> StoredFile:
    if value.oid not in repository.lfs_objects:
        raise HubError(400, f"LFS pointer {value.path} points to an object that was not uploaded: {value.oid}")
    size = store.objects.path(value.oid).stat().st_size
    if value.size not in (None, size):
        raise HubError(400, f"LFS pointer {value.path} says {value.size} bytes, the object has {size}")
    return repository.lfs_file(value.oid, size)


def _deleted_paths(operation: DeletionLine, head: Commit) -> list[str]:
    path = operation.value.path.rstrip("/")
    if operation.key == "deletedFile":
        found = [path] if path in head.files else []
    else:
        found = [name for name in head.files if name.startswith(f"{path}/")]
    if not found:
        raise entry_not_found(head.oid, NOTHING_BY_THAT_NAME)
    return found


def _check_path(path: str) -> None:
    parts = path.rstrip("/").split("/")
    if {"", ".", "..", ".git"} & set(parts):
        raise HubError(400, f"Invalid path in the repository: {path!r}")
