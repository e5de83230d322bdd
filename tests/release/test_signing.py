"""Signatures: made here or by ssh-keygen, checked here or by ssh-keygen; whatever is changed no longer fits."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gshf_release.errors import ReleaseError, VerificationError
from gshf_release.release import manifest, signing
from gshf_release.release.verify_folder import verify_folder
from tests.conftest import Outcome
from tests.release import made

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two Ed25519 keys in OpenSSH's form, `mine` and `other`, and their public halves."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        content = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
        (folder / f"{name}.pub").write_text(f"{signing.public_line(folder / name)} somebody\n", encoding="ascii")
    return folder


@pytest.fixture
def folder(tmp_path: Path, keys: Path) -> Path:
    made.release(tmp_path / "iter-1")
    signing.sign(tmp_path / "iter-1", keys / "mine")
    return tmp_path / "iter-1"


def test_a_signed_folder_names_its_signer(folder: Path, keys: Path, command: Callable[..., Outcome]) -> None:
    line = signing.public_line(keys / "mine")
    assert verify_folder(folder).signer == line
    assert verify_folder(folder, key=keys / "mine.pub").signer == line
    assert f"signed by {line}." in command("verify", folder, "--key", keys / "mine.pub").out


def test_another_key_is_found(folder: Path, keys: Path, command: Callable[..., Outcome]) -> None:
    outcome = command("verify", folder, "--key", keys / "other.pub")
    assert outcome.code == 3
    assert "another key signed than that of" in outcome.line


def test_a_folder_without_a_signature_is_refused_only_if_a_key_is_given(tmp_path: Path, keys: Path) -> None:
    folder = made.release(tmp_path / "unsigned")
    assert verify_folder(folder).signer is None
    with pytest.raises(VerificationError, match=r"is not signed: there is no manifest\.json\.sig"):
        verify_folder(folder, key=keys / "mine.pub")


def test_a_signature_that_was_taken_away_is_missed_without_a_key_too(folder: Path) -> None:
    (folder / manifest.SIGNATURE).unlink()
    with pytest.raises(VerificationError, match=r"is not signed: there is no manifest\.json\.sig"):
        verify_folder(folder)


def test_a_key_that_cannot_be_used_is_said_before_any_work(
    keys: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    (tmp_path / "facts.yaml").write_text("license: mit\ntemplate_change: made by hand\n", encoding="utf-8")
    checkpoint = made.checkpoint(tmp_path / "checkpoint")
    arguments = ("publish", checkpoint, "--facts", tmp_path / "facts.yaml", "--out", tmp_path / "out", "--sign")
    for key in (keys / "none", keys / "mine.pub"):
        assert command(*arguments, key).code == 1
        assert not (tmp_path / "out").exists()
    assert command(*arguments, keys / "mine").code == 0


def test_files_changed_together_with_the_manifest_are_found(folder: Path) -> None:
    (folder / "config.json").write_text("{}", encoding="utf-8")
    manifest.list_again(folder)
    with pytest.raises(VerificationError, match=r"The signature does not fit manifest\.json"):
        verify_folder(folder, hashes_only=True)


def test_a_changed_signature_is_found(folder: Path) -> None:
    path = folder / manifest.SIGNATURE
    text = path.read_text(encoding="ascii")
    body = text.split("\n", 1)[1]
    for at in range(0, len(body) - 30, 7):
        if body[at].isalnum():
            path.write_text(text.replace(body, body[:at] + ("A" if body[at] != "A" else "B") + body[at + 1 :]))
            with pytest.raises(VerificationError):
                signing.verify(folder)


def test_signing_again_gives_the_same_bytes(folder: Path, keys: Path) -> None:
    before = (folder / manifest.SIGNATURE).read_bytes()
    signing.sign(folder, keys / "mine")
    assert (folder / manifest.SIGNATURE).read_bytes() == before


def test_a_folder_that_is_not_what_its_manifest_says_is_not_signed(folder: Path, keys: Path) -> None:
    (folder / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(VerificationError, match=r"config\.json"):
        signing.sign(folder, keys / "mine")


@pytest.mark.parametrize(
    "content", ["", "not a key", "-----BEGIN " + "PRIVATE KEY-----\nMAo=\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_private_key_names_how_to_make_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content, encoding="ascii")
    with pytest.raises(ReleaseError, match=r"Make one with: ssh-keygen -t ed25519"):
        signing.public_line(tmp_path / "key")


needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")


@needs_ssh_keygen
def test_ssh_keygen_accepts_the_signature(folder: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "signers").write_text(f"releaser {signing.public_line(keys / 'mine')}\n", encoding="ascii")
    call = ["ssh-keygen", "-Y", "verify", "-f", tmp_path / "signers", "-I", "releaser", "-n", "gshf-release"]
    command = [str(part) for part in [*call, "-s", folder / manifest.SIGNATURE]]
    content = (folder / manifest.NAME).read_bytes()
    assert subprocess.run(command, input=content, capture_output=True).returncode == 0
    assert subprocess.run(command, input=content + b" ", capture_output=True).returncode != 0


@needs_ssh_keygen
def test_a_signature_of_ssh_keygen_is_accepted(folder: Path, keys: Path) -> None:
    signature = folder / manifest.SIGNATURE
    signature.unlink()
    command = ["ssh-keygen", "-Y", "sign", "-q", "-f", keys / "mine", "-n", "gshf-release", folder / manifest.NAME]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    assert signing.verify(folder) == signing.public_line(keys / "mine")
