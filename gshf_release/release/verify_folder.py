"""Verify a release folder by itself: hashes, signature, headers, templates, and the card's numbers down to the judgments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from gshf_release.errors import GshfError, VerificationError
from gshf_release.release import chat_templates, eval_results, manifest, rules, signing, weights

Answer = TypeVar("Answer")


class FolderCheck(NamedTuple):
    """Records what was found to be as recorded."""

    files: int
    numbers: int
    tensors: int
    signer: str | None


def verify_folder(folder: Path, *, hashes_only: bool = False, key: Path | None = None) -> FolderCheck:
    """Check everything that a release folder says about itself.

    Args:
        folder: A folder with a manifest.
        hashes_only: Compare sha256 and signature alone.
        key: Public key that must have signed; None takes the one in the folder, if it is signed at all.

    Raises:
        VerificationError: One line for each thing that is wrong.
    """
    odd = manifest.oddities(folder)
    if odd:
        raise VerificationError("\n".join(odd))
    files, changed = manifest.differences(folder)
    wrong = [f"{folder / name}: differs from {manifest.NAME}." for name in changed]
    wrong += [] if changed else rules.forbidden(folder)
    signer = _collect(lambda: signing.verify(folder, key), wrong)
    tensors = numbers = 0
    if not hashes_only and not changed:
        tensors = _collect(lambda: _tensors(folder), wrong) or 0
        _collect(lambda: _template(folder), wrong)
        for check in (eval_results.recompute, eval_results.check_card):
            count, lines = _collect(partial(check, folder), wrong) or (0, [])
            numbers += count
            wrong += lines
    if wrong:
        raise VerificationError("\n".join(wrong))
    return FolderCheck(files, numbers, tensors, signer)


def _collect(check: Callable[[], Answer], wrong: list[str]) -> Answer | None:
    try:
        return check()
    except GshfError as error:
        wrong.append(str(error))
    except Exception as error:  # the hashes are right, but anybody can write hashes
        wrong.append(f"A file is damaged: {type(error).__name__}: {' '.join(str(error).split())[:200]}.")
    return None


def _tensors(folder: Path) -> int:
    """Check the headers of a checkpoint; quantized ones have dtypes of their own, which their manifest names."""
    if not any(folder.glob("*.safetensors")):
        return 0
    dtype = str(manifest.read_release_manifest(folder).get("dtype", "BF16"))
    if dtype == "compressed-tensors":
        weights.check_ends(folder)
        return sum(len(rules.safetensors_header(path)) for path in sorted(folder.glob("*.safetensors")))
    return sum(weights.check_files(folder, dtype).values())


def _template(folder: Path) -> None:
    found, recorded = chat_templates.sha256(folder), manifest.read_release_manifest(folder).get("chat_template_sha256")
    if recorded is not None and found != recorded:
        raise VerificationError(f"The chat template is not the one {manifest.NAME} names.")
