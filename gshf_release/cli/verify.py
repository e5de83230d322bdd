"""`gshf-release verify RUN|FOLDER|REPO@TAG`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gshf_release.cli.terminal import json_option, print_json, show


@click.command(name="verify")
@click.argument("target", metavar="RUN|FOLDER|REPO@TAG")
@click.option("--hashes-only", is_flag=True, help="Compare sha256 and signature only; recompute nothing.")
@click.option("--lineage", is_flag=True, help="Also trace every trained response back to the policy that drew it.")
@click.option("--key", type=click.Path(path_type=Path), help="Public key file that must have signed the release.")
@json_option
def command(target: str, hashes_only: bool, lineage: bool, key: Path | None, as_json: bool) -> None:
    """Recompute every hash and every number of a run or a release. Exit code 3 if one differs, one line for each.

    For the parent that `train --seeds` made, every seed is verified, and the merge of their results.

    A release is a folder, or a tag on the Hub that is downloaded first. Checked are the sha256 of every file, the signature,
    the headers of the weights, the chat template wherever it stands, and the card's numbers down to the judgments.

    \b
    Examples:
      gshf-release verify runs/quickstart
      gshf-release verify runs/quickstart --lineage
      gshf-release verify release-out/quickstart/iter-3 --key releaser.pub
      gshf-release verify me/my-model@iter-3
    """
    from gshf_release.errors import VerificationError
    from gshf_release.hub.download import downloaded, is_remote
    from gshf_release.release import manifest
    from gshf_release.run.directory import DOCUMENT, seed_runs

    path = Path(target)
    seeds = seed_runs(path)
    if seeds:
        _parent(path, seeds, as_json, hashes_only=hashes_only, lineage=lineage, key=key)
        return
    remote = not path.exists() and is_remote(target)
    if lineage and (remote or (path.exists() and not (path / DOCUMENT).is_file())):
        raise VerificationError(f"{target} is no run directory; only a run holds the responses it was trained on.")
    if remote:
        with downloaded(target) as folder:
            found = _folder(folder, hashes_only, key)
    elif not path.exists():
        raise VerificationError(f"{target} does not exist.", hint="A release on the Hub is OWNER/NAME@TAG.")
    elif (path / DOCUMENT).is_file():
        found = _run(path, hashes_only=hashes_only, lineage=lineage, key=key)
    elif (path / manifest.NAME).is_file():
        found = _folder(path, hashes_only, key)
    else:
        raise VerificationError(f"{path} is neither a run directory nor a release folder with a {manifest.NAME}.")
    print_json(found) if as_json else _show(found)


def _parent(path: Path, seeds: dict[int, Path], as_json: bool, **options: Any) -> None:
    """Verify every seed of a parent, and their merge.

    Raises:
        VerificationError: One line for each difference, with the seed it is of.
    """
    from gshf_release.errors import VerificationError
    from gshf_release.report.seeds import verify_merged

    found, wrong = {}, []
    for seed, folder in seeds.items():
        try:
            found[seed] = _run(folder, **options)
        except VerificationError as error:
            wrong += [f"{folder.name}: {line}" for line in error.message.split("\n")]
    try:
        verify_merged(path)
    except VerificationError as error:
        wrong.append(str(error))
    if wrong:
        raise VerificationError("\n".join(wrong))
    if as_json:
        print_json({"seeds": {str(seed): entry for seed, entry in found.items()}})
        return
    for seed, entry in found.items():
        show(f"Seed {seed}: ", nl=False)
        _show(entry)


def _show(found: dict[str, Any]) -> None:
    for text in found.get("unchecked", []):
        show(f"Not checked: {text}.")
    show(_sentence(found))
    if "digest" in found:
        show(f"manifest sha256 {found['digest']}")  # word for word what the tag's message says
    if "trained" in found:
        outside = "no external responses" if not found["external"] else f"{found['external']} external pairs"
        show(
            f"{found['trained']} trained rows come from {found['responses']} responses of the run's own policies; {outside}."
        )


def _run(path: Path, *, hashes_only: bool, lineage: bool, key: Path | None) -> dict[str, Any]:
    from gshf_release.release.lineage import verify_lineage
    from gshf_release.release.verify import unchecked, verify_run
    from gshf_release.run.directory import RunDirectory

    run = RunDirectory.open(path)
    found: dict[str, Any] = verify_run(run, hashes_only=hashes_only, key=key)._asdict()
    left = unchecked(run, found["unfinished"])
    return found | ({"unchecked": left} if left else {}) | (verify_lineage(run)._asdict() if lineage else {})


def _folder(path: Path, hashes_only: bool, key: Path | None) -> dict[str, Any]:
    from gshf_release.release import manifest
    from gshf_release.release.verify_folder import verify_folder

    checked = verify_folder(path, hashes_only=hashes_only, key=key)
    return checked._asdict() | {"unfinished": 0, "digest": manifest.digest(path)}


def _sentence(found: dict[str, Any]) -> str:
    text = f"{found['files']} files have their recorded sha256"
    if found["numbers"]:
        text += f"; {found['numbers']} numbers come out as recorded"
    if found.get("tensors"):
        text += f"; {found['tensors']} tensors have the right type"
    if found["unfinished"]:
        text += f"; {found['unfinished']} stages are not finished"
    if found.get("signer"):
        text += f"; signed by {found['signer']}"
    return f"{text}."
