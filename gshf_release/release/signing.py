"""An optional signature over the manifest: who released it, for anybody who knows the releaser's public key.

Ed25519 in OpenSSH's signature format (PROTOCOL.sshsig in the OpenSSH sources): releasers have such keys already, their public
halves are often published already (github.com/USER.keys), and `ssh-keygen -Y verify` can check the file without this package.
The arithmetic is that of `cryptography` (PyCA): kept by many, released monthly, a wheel for every platform. The manifest lists
the sha256 of every other file, so signing its bytes signs the release.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from pathlib import Path
from typing import Any

from gshf_release.errors import ReleaseError, VerificationError
from gshf_release.release import manifest

NAMESPACE = b"gshf-release"
"""What `ssh-keygen -Y verify` gets with -n: a signature made for another purpose does not count."""
MAGIC = b"SSHSIG"
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
PUBLIC = "signer.txt"
"""Public half of the key, in OpenSSH's one-line form, beside the manifest; listed in it."""


def public_line(key: Path) -> str:
    """Return the public half of a private key as OpenSSH's one line, without a comment.

    Raises:
        ReleaseError: The key cannot be read, or is no Ed25519 key.
    """
    from cryptography.hazmat.primitives import serialization

    public = _private(key).public_key()
    line: bytes = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.decode("ascii")


def sign(folder: Path, key: Path) -> None:
    """Write the public key and the manifest's signature into a release folder; both replace earlier ones.

    Raises:
        ReleaseError: The key cannot be read, or is no Ed25519 key.
        VerificationError: The folder is not what its manifest says.
    """
    manifest.verify(folder)
    private = _private(key)
    (folder / PUBLIC).write_text(public_line(key) + "\n", encoding="ascii")
    manifest.list_again(folder)
    content = (folder / manifest.NAME).read_bytes()
    blob = base64.b64decode(public_line(key).split()[1])
    signature = _string(b"ssh-ed25519") + _string(private.sign(_to_sign(content)))
    body = MAGIC + (1).to_bytes(4, "big") + b"".join(map(_string, (blob, NAMESPACE, b"", b"sha512", signature)))
    armour = "\n".join(textwrap.wrap(base64.b64encode(body).decode("ascii"), 70))
    (folder / manifest.SIGNATURE).write_text(f"{BEGIN}\n{armour}\n{END}\n", encoding="ascii")


def verify(folder: Path, key: Path | None = None) -> str | None:
    """Check a folder's signature; return the signer's public key, or None if the folder is not signed and no key is given.

    Args:
        folder: A release folder.
        key: A file with the public key that must have signed, in OpenSSH's one-line form; None takes the one stored beside the
            manifest, which proves only that the folder was not changed since its holder signed it.

    Raises:
        VerificationError: The signature is missing, damaged, of another key, or does not fit the manifest.
    """
    path = folder / manifest.SIGNATURE
    if not path.is_file():
        if key is not None or (folder / PUBLIC).is_file():  # a signature that was taken away leaves its signer
            raise VerificationError(f"{folder} is not signed: there is no {manifest.SIGNATURE}.")
        return None
    wanted = _public_blob(folder / PUBLIC if key is None else key)
    blob, signature = _parse(path)
    if blob != wanted:
        raise VerificationError(f"{path.name}: another key signed than that of {PUBLIC if key is None else key}.")
    _check(blob, signature, (folder / manifest.NAME).read_bytes())
    return "ssh-ed25519 " + base64.b64encode(blob).decode("ascii")


def _check(blob: bytes, signature: bytes, content: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        (kind, raw), (method, made) = _strings(blob, 2), _strings(signature, 2)
        if (kind, method) != (b"ssh-ed25519", b"ssh-ed25519"):
            raise ValueError("another kind of key")
        Ed25519PublicKey.from_public_bytes(raw).verify(made, _to_sign(content))
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(f"The signature does not fit {manifest.NAME}.") from error


def _to_sign(content: bytes) -> bytes:
    return MAGIC + b"".join(map(_string, (NAMESPACE, b"", b"sha512", hashlib.sha512(content).digest())))


def _parse(path: Path) -> tuple[bytes, bytes]:
    """Return the public key and the signature in an OpenSSH signature file."""
    try:
        lines = path.read_text(encoding="ascii").strip().split("\n")
        if (lines[0], lines[-1]) != (BEGIN, END):
            raise ValueError("no armour")
        text = "".join(lines[1:-1])
        body = base64.b64decode(text, validate=True)
        if base64.b64encode(body).decode("ascii") != text:
            raise ValueError("unused bits are set")
        if body[:10] != MAGIC + (1).to_bytes(4, "big"):
            raise ValueError("no signature")
        blob, namespace, reserved, algorithm, signature = _strings(body[10:], 5)
        if (namespace, reserved, algorithm) != (NAMESPACE, b"", b"sha512"):
            raise ValueError("made for another purpose")
    except ValueError as error:
        raise VerificationError(f"{path.name} is damaged.") from error
    return blob, signature


def _public_blob(path: Path) -> bytes:
    try:
        words = path.read_text(encoding="utf-8").split()
        at = words.index("ssh-ed25519")
        return base64.b64decode(words[at + 1], validate=True)
    except (OSError, ValueError, IndexError) as error:
        raise VerificationError(
            f"{path} holds no Ed25519 public key (one line that starts with ssh-ed25519)."
        ) from error


def _private(path: Path) -> Any:
    """Return the Ed25519 key of a file in OpenSSH's or PEM form."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
    except ModuleNotFoundError as error:
        raise ReleaseError(
            "Signatures need the package cryptography.", hint="Install: pip install 'gshf-release[sign]'"
        ) from error
    try:
        content = path.read_bytes()
        load: Any = load_ssh_private_key if b"OPENSSH" in content else load_pem_private_key
        key = load(content, password=None)
    except OSError as error:
        raise ReleaseError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError) as error:
        raise ReleaseError(
            f"{path} is no private key that can be read without a passphrase.",
            hint="Make one with: ssh-keygen -t ed25519 -N '' -f FILE",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ReleaseError(f"{path} is no Ed25519 key.", hint="Make one with: ssh-keygen -t ed25519 -N '' -f FILE")
    return key


def _string(value: bytes) -> bytes:
    """Return a value with its length before it (RFC 4251, section 5)."""
    return len(value).to_bytes(4, "big") + value


def _strings(data: bytes, count: int) -> list[bytes]:
    """Return the `count` values that `_string` wrote one after the other.

    Raises:
        ValueError: There are fewer, or something follows.
    """
    found = []
    for _ in range(count):
        length = int.from_bytes(data[:4], "big")
        if len(data) < 4 + length:
            raise ValueError("cut")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    if data:
        raise ValueError("something follows")
    return found
