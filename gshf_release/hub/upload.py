"""Weights go to the Hub one file after the other, before the commit that names them; each has its line in the journal.

The card is shown to the Hub first: one that it refuses is said before gigabytes are sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gshf_release.hub.client import call

WEIGHTS = (".safetensors", ".gguf")


def upload(
    api: Any, label: str, repository: str, local: Mapping[str, Path], card: Path | None, report: Callable[[str], None]
) -> dict[str, Any]:
    """Send those of the local files that are weights and are not on the Hub; return their operations for the commit.

    Args:
        api: A Hub client that knows the repository's type.
        label: What a line of the journal begins with.
        repository: `OWNER/NAME`.
        local: What the commit will add, by path in the repository.
        card: The card that it will add, if any.
        report: Called with one line per file.

    Raises:
        ReleaseError: The Hub refuses the card or a file.
        NetworkError: The Hub gave up after the retries.
    """
    from huggingface_hub import CommitOperationAdd

    weights = {name: path for name, path in local.items() if name.endswith(WEIGHTS)}
    if weights and card is not None:
        call(partial(_validate, api, card))
    sent = {}
    for name, path in weights.items():
        operation = CommitOperationAdd(name, str(path))
        call(partial(api.preupload_lfs_files, repository, additions=[operation], free_memory=False))
        facts = operation.upload_info
        report(f"{label}: {name} is uploaded, {facts.size} bytes, sha256 {facts.sha256.hex()}")
        sent[name] = operation
    return sent


def _validate(api: Any, card: Path) -> None:
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    content = {"content": card.read_text(encoding="utf-8"), "repoType": api.repo_type}
    headers = build_hf_headers(token=api.token)
    hf_raise_for_status(get_session().post(f"{api.endpoint}/api/validate-yaml", json=content, headers=headers))
