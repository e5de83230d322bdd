"""Repositories of the fake Hub: history in memory, file contents on disk under their sha256."""

import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal
from uuid import uuid4

from tests.servers.hub import git
from tests.servers.hub.errors import HubError, repository_not_found, revision_not_found

RepositoryType = Literal["model", "dataset"]
Changes = Mapping[str, "StoredFile | None"]

DEFAULT_BRANCH = "main"
# The Hub starts every repository with a commit of this file; the patterns decide what goes through LFS.
LFS_PATTERNS = (
    *("*.safetensors", "*.gguf", "*.parquet", "*.bin", "*.model", "*.npz", "*.zip"),
    *("*.png", "*.jpg", "*tfevents*"),
)
GIT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
REGULAR_FILE_LIMIT = 10 * 1024 * 1024  # bytes; above it the Hub takes a file only through LFS
# What `git check-ref-format` refuses, as far as a release could run into it.
BAD_REFERENCE = re.compile(r"[\s~^:?*\[\\]|\.\.|//|^[/.-]|[/.]$|\.lock$|@\{|^$")


@dataclass(frozen=True)
class StoredFile:
    """A file as one commit sees it; `oid` is the blob's id, of the pointer text for an LFS file."""

    sha256: str
    size: int
    oid: str
    is_lfs: bool

    @property
    def pointer_size(self) -> int:
        """Length in bytes of the LFS pointer that git holds instead of the content."""
        return len(git.lfs_pointer(self.sha256, self.size))


@dataclass(frozen=True)
class Commit:
    """One state of a repository; `folders` maps each folder to its tree id, the root being `""`."""

    oid: str
    parent: str | None
    title: str
    description: str
    author: str
    date: datetime
    files: Mapping[str, StoredFile]
    folders: Mapping[str, str]


class ObjectStore:
    """File contents, one file on disk per sha256, shared by all repositories."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Where the content lies, or would lie."""
        return self._folder / sha256

    def write(self, content: bytes) -> StoredFile:
        """Keeps a small file that travelled inside a commit."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.path(sha256).write_bytes(content)
        return StoredFile(sha256, len(content), git.object_id("blob", content), is_lfs=False)

    async def receive(self, chunks: AsyncIterator[bytes], sha256: str) -> None:
        """Streams an upload to disk and keeps it only if it is what was announced.

        Raises:
            HubError: 400 when the bytes do not hash to `sha256`.
        """
        partial = self._folder / f"{sha256}.{uuid4().hex}.partial"
        digest = hashlib.sha256()
        try:
            with partial.open("wb") as file:
                async for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise HubError(400, f"The body hashes to {digest.hexdigest()}, announced was {sha256}")
            partial.replace(self.path(sha256))
        finally:
            partial.unlink(missing_ok=True)

    async def receive_part(self, chunks: AsyncIterator[bytes], sha256: str, number: int) -> str:
        """Keeps one part of an upload; returns the name that its sender has to give back."""
        path = self._part(sha256, number)
        with path.open("wb") as file:
            async for chunk in chunks:
                file.write(chunk)
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()

    async def join(self, sha256: str, parts: list[tuple[int, str]]) -> None:
        """Makes one object of its parts.

        Raises:
            HubError: 400 when a part is missing or another, or the whole does not hash to `sha256`.
        """
        for number, etag in parts:
            path = self._part(sha256, number)
            if not path.is_file() or hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != etag:
                raise HubError(400, f"Part {number} of {sha256} was not uploaded")

        async def chunks() -> AsyncIterator[bytes]:
            for number, _ in sorted(parts):
                yield self._part(sha256, number).read_bytes()

        await self.receive(chunks(), sha256)
        for number, _ in parts:
            self._part(sha256, number).unlink()

    def xorb(self, name: str) -> Path:
        """Where a block of chunks lies that came by the Xet protocol, or would lie."""
        return self._folder / f"{name}.xorb"

    def forget_xorbs(self) -> None:
        """Removes the blocks; files made of them stay."""
        for path in self._folder.glob("*.xorb"):
            path.unlink()

    def _part(self, sha256: str, number: int) -> Path:
        return self._folder / f"{sha256}.part-{number}"


@dataclass
class PullRequest:
    """Proposed commits; `refs/pr/NUMBER` is their branch."""

    number: int
    title: str
    head: str
    status: Literal["open", "merged"] = "open"


@dataclass
class Collection:
    """Repositories of one owner, shown on one page."""

    slug: str
    title: str
    description: str | None
    private: bool
    items: list[tuple[RepositoryType, str]] = field(default_factory=list)

    def is_called(self, namespace: str, title: str) -> bool:
        """Whether it is the one that an owner called so."""
        return (self.slug.partition("/")[0], self.title) == (namespace, title)


@dataclass
class Repository:
    """One model or dataset repository with its history."""

    kind: RepositoryType
    id: str
    private: bool
    gated: Literal["auto", "manual", False] = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    tag_messages: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, "PullRequest"] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    lfs_objects: set[str] = field(default_factory=set)  # sha256 of what was uploaded to this repository
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def resolve(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a full commit id stands for."""
        pull = self.pulls.get(revision)
        oid = pull.head if pull else self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise revision_not_found(revision)
        return self.commits[oid]

    def history(self, revision: str) -> Iterator[Commit]:
        """Commits from a revision back to the first."""
        commit: Commit | None = self.resolve(revision)
        while commit is not None:
            yield commit
            commit = self.commits[commit.parent] if commit.parent else None

    def commit(self, branch: str, changes: Changes, author: str, title: str, description: str = "") -> Commit:
        """Moves a branch to a new commit.

        Args:
            branch: an existing branch, or the default branch of an empty repository.
            changes: path to its new file, or to None for a deletion.
        """
        parent = self.resolve(branch) if self.commits else None
        files = {path: file for path, file in {**(parent.files if parent else {}), **changes}.items() if file}
        folders = git.tree_oids({path: file.oid for path, file in files.items()})
        if clash := sorted(folders.keys() & files.keys()):
            raise HubError(400, f"{clash[0]} is both a file and a folder")
        date = datetime.now(UTC)
        message = f"{title}\n\n{description}" if description else title
        parent_oid = parent.oid if parent else None
        oid = git.commit_oid(folders[""], parent_oid, author, date, message)
        self.commits[oid] = Commit(oid, parent_oid, title, description, author, date, files, folders)
        if branch in self.pulls:
            self.pulls[branch].head = oid
        else:
            self.branches[branch] = oid
        return self.commits[oid]

    def open_pull_request(self, title: str) -> str:
        """Starts a pull request on the default branch; returns its reference."""
        reference = f"refs/pr/{len(self.pulls) + 1}"
        self.pulls[reference] = PullRequest(len(self.pulls) + 1, title, self.branches[DEFAULT_BRANCH])
        return reference

    def merge(self, reference: str) -> None:
        """Moves the default branch to the pull request's last commit, and closes it."""
        self.branches[DEFAULT_BRANCH] = self.pulls[reference].head
        self.pulls[reference].status = "merged"

    def create_tag(self, tag: str, revision: str, message: str = "") -> None:
        """Names a commit for good; a tag never moves, a second one of that name is refused with 409."""
        commit = self.resolve(revision)
        check_reference(tag)
        if tag in self.tags:
            raise HubError(409, f"Tag {tag} already exists")
        self.tags[tag] = commit.oid
        self.tag_messages[tag] = message

    def delete_tag(self, tag: str) -> None:
        """Forgets a tag; its commit stays."""
        if tag not in self.tags:
            raise revision_not_found(tag)
        del self.tags[tag]

    def create_branch(self, branch: str, revision: str) -> None:
        """Starts a branch at a revision; 409 if there is one of that name."""
        commit = self.resolve(revision)
        check_reference(branch)
        if branch in self.branches:
            raise HubError(409, f"Branch {branch} already exists")
        self.branches[branch] = commit.oid

    def delete_branch(self, branch: str) -> None:
        """Forgets a branch; the default branch is kept, as on the Hub."""
        if branch == DEFAULT_BRANCH:
            raise HubError(403, "The default branch cannot be deleted")
        if branch not in self.branches:
            raise revision_not_found(branch)
        del self.branches[branch]

    def lfs_file(self, sha256: str, size: int) -> StoredFile:
        """The pointer to an uploaded object, for use in a commit."""
        return StoredFile(sha256, size, git.object_id("blob", git.lfs_pointer(sha256, size)), is_lfs=True)


class HubStore:
    """All repositories of one server."""

    def __init__(self, root: Path) -> None:
        self.objects = ObjectStore(root / "objects")
        self.repositories: dict[tuple[RepositoryType, str], Repository] = {}
        self.collections: dict[str, Collection] = {}

    def find(self, kind: RepositoryType, repo_id: str) -> Repository | None:
        """The repository of that name, or None."""
        return self.repositories.get((kind, repo_id))

    def create(self, kind: RepositoryType, repo_id: str, author: str, private: bool) -> Repository:
        """A repository with its first commit, which holds `.gitattributes` as on the Hub."""
        repository = Repository(kind, repo_id, private)
        attributes = self.objects.write(GIT_ATTRIBUTES.encode())
        repository.commit(DEFAULT_BRANCH, {".gitattributes": attributes}, author, "initial commit")
        self.repositories[kind, repo_id] = repository
        return repository

    def collect(self, namespace: str, title: str, description: str | None, private: bool) -> Collection:
        """A new collection; its address ends in a number that no other has."""
        slug = f"{namespace}/{title.lower().replace(' ', '-')}-{len(self.collections):024x}"
        self.collections[slug] = Collection(slug, title, description, private)
        return self.collections[slug]

    def delete(self, kind: RepositoryType, repo_id: str) -> None:
        """Removes a repository; contents stay on disk, another repository may share them."""
        if self.repositories.pop((kind, repo_id), None) is None:
            raise repository_not_found(anonymous=False)

    def read(self, file: StoredFile) -> bytes:
        """Content of a small file, such as a card."""
        return self.objects.path(file.sha256).read_bytes()


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether a file goes through LFS: by its name, its size, or because it is binary."""
    named = any(fnmatch(path.rpartition("/")[2], pattern) for pattern in LFS_PATTERNS)
    return named or size > REGULAR_FILE_LIMIT or b"\0" in sample


def check_reference(name: str) -> None:
    """Refuses what git would refuse as the name of a branch or tag."""
    if BAD_REFERENCE.search(name):
        raise HubError(400, f"Invalid reference name: {name!r}")
