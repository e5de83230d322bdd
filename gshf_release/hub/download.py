"""A release on the Hub, brought here to be verified: `OWNER/NAME@TAG`."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gshf_release.errors import VerificationError
from gshf_release.hub import client as hub_client
from gshf_release.release import manifest

REMOTE = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*@[\w./-]+")


def is_remote(target: str) -> bool:
    """Return whether a text has the form OWNER/NAME@TAG."""
    return REMOTE.fullmatch(target) is not None


@contextlib.contextmanager
def downloaded(target: str) -> Iterator[Path]:
    """Download a tag into a temporary folder, which is removed afterwards.

    The folder lies where `TMPDIR` says; it needs the room of the release. Nothing comes from the client's cache, so that what
    the Hub serves is what is verified.

    Raises:
        VerificationError: There is no such repository or tag, or it holds no release.
        NetworkError: The Hub cannot be reached.
    """
    repository, _, revision = target.rpartition("@")
    with tempfile.TemporaryDirectory(prefix="gshf-release-verify-") as temporary:
        folder = Path(temporary) / "release"
        api = hub_client.client()
        commit = hub_client.commit_of(api, repository, revision)
        if commit is None:
            raise VerificationError(
                f"{target} is not on the Hub, or not for you.", hint="A private repository needs: hf auth login"
            )
        hub_client.download(api, repository, commit, folder)
        if not (folder / manifest.NAME).is_file():
            raise VerificationError(f"{target} holds no {manifest.NAME}; tags on the Hub: {_tags(api, repository)}.")
        yield folder


def _tags(api: object, repository: str) -> str:
    return ", ".join(sorted(hub_client.tags(api, repository))) or "none"
