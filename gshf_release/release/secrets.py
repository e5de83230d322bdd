"""Find what must not leave the machine: access tokens, private keys, paths below a home, e-mail addresses.

Two nets. Patterns find what looks like a secret of a known service; `known_secrets` finds the very values that this process
could reach (environment, netrc, the Hub client's store), whatever they look like. Sources of the patterns:

- Hub: `hf_` and 34 letters or digits (huggingface.co/docs/hub/security-tokens; TruffleHog's HuggingFace detector).
- OpenAI and Anthropic: `sk-`, since 2024 with `proj-`, `svcacct-`, `admin-`, `ant-` (gitleaks rules openai-api-key and
  anthropic-api-key), here without their exact lengths, which have changed twice.
- AWS: the key id prefixes of docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html; the 40-character secret is
  found by the name before it, as in the older gitleaks rules.
- GitHub: github.blog/2021-04-05-behind-githubs-new-authentication-token-formats, and fine-grained `github_pat_`.
- W&B: 40 hex digits after a word that names the service (40 hex digits alone are a git commit), and the newer `wandb_v1_` keys.
- Private keys: the labels of RFC 7468 and of OpenSSH and PGP.
- E-mail addresses: the HTML standard's definition with a top-level domain; reserved names (RFC 2606) are nobody's.
"""

from __future__ import annotations

import json
import netrc
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from gshf_release.errors import ReleaseError
from gshf_release.recipe import AllowedFinding

HOME_PATH = "a path of this machine"
EMAIL = "an e-mail address"
OWN = "a secret of this machine (environment, netrc or the Hub client's store)"
SECRETS: dict[str, re.Pattern[str]] = {
    "a Hugging Face token": re.compile(r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    "an API key (sk-...)": re.compile(r"(?<![A-Za-z0-9])sk-(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{20,}"),
    "an AWS access key": re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Z0-9])"),
    "an AWS secret key": re.compile(
        r"(?i:aws_?(?:secret|session)[a-z_]*)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"
    ),
    "a GitHub token": re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{50,})"),
    "a W&B key": re.compile(
        r"(?<![A-Za-z0-9])wandb_v1_[A-Za-z0-9_]{40,}"
        r"|(?i:wandb|weights ?(?:and|&) ?biases)[^\n]{0,40}?(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])"
    ),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY"),
}
PRIVATE: dict[str, re.Pattern[str]] = {
    HOME_PATH: re.compile(
        r"(?<![\w.])/(?:home|root|Users|tmp|var|mnt|work|scratch)/[\w.@-]+|\b[A-Za-z]:\\+Users\\+[\w.@-]+"
    ),
    EMAIL: re.compile(
        r"(?<![\w.+@/-])[A-Za-z0-9][\w.+-]*@(?!(?:[\w-]+\.)*(?:example\.(?:com|org|net)|test|example|invalid|localhost)\b)"
        r"[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}(?![\w-])(?!:)"
    ),
}
TEXT = (".json", ".jsonl", ".jinja", ".md", ".txt", ".yaml", ".yml", ".csv", ".svg", ".sig")
VOCABULARY = ("vocab", "merges")
GGUF_VOCABULARY = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
SECRET_NAME = re.compile(r"(?i)(?:^|_)(?:token|secret|password|passwd|key|credentials?|auth)s?(?:_|$)")
SHORTEST_OWN = 12
"""Characters. A shorter value of the environment is more likely a word than a secret."""


class Finding(NamedTuple):
    """One place that must not be published."""

    file: str
    kind: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        """Return file, line and kind; a path or address is shown, a secret is not."""
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{place}: {self.kind}{f': {self.text}' if self.kind in PRIVATE else ''}"


def find(text: str, *, private: bool = True) -> list[tuple[str, str]]:
    """Return `(kind, match)` of everything in `text` that looks like a secret, with `private` also paths and addresses."""
    return [(kind, match) for kind, match, _ in _find(text, private)]


def _find(text: str, private: bool) -> Iterator[tuple[str, str, int]]:
    """Yield `(kind, match, where it begins)`: the whole text at once, since a tokenizer has hundreds of thousands of lines."""
    for kind, pattern in (SECRETS | PRIVATE if private else SECRETS).items():
        yield from ((kind, match.group(), match.start()) for match in pattern.finditer(text))
    for secret in known_secrets():
        yield from ((OWN, secret, match.start()) for match in re.finditer(re.escape(secret), text))


def redact(text: str) -> str:
    """Return a message without secrets: what a server answers may repeat what was sent to it."""
    for secret in known_secrets():
        text = text.replace(secret, "[secret removed]")
    for pattern in SECRETS.values():
        text = pattern.sub("[secret removed]", text)
    return text


def known_secrets() -> tuple[str, ...]:
    """Return the secrets this process can reach, longest first."""
    named = tuple(sorted((name, value) for name, value in os.environ.items() if SECRET_NAME.search(name)))
    home = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    stores = (os.environ.get("HF_TOKEN_PATH") or f"{home}/token", f"{home}/stored_tokens")
    return _known(named, os.environ.get("NETRC") or str(Path.home() / ".netrc"), stores)


@lru_cache(maxsize=8)
def _known(named: tuple[tuple[str, str], ...], netrc_file: str, stores: tuple[str, ...]) -> tuple[str, ...]:
    found = {value.strip() for _, value in named if not Path(value).exists()}
    try:
        hosts = netrc.netrc(netrc_file).hosts.values()
        found |= {str(password) for _, _, password in hosts}
    except (OSError, netrc.NetrcParseError):
        pass
    for store in map(Path, stores):
        if store.is_file():
            found |= {word.rpartition("=")[2] for word in store.read_text(encoding="utf-8", errors="replace").split()}
    return tuple(
        sorted((value for value in found if len(value) >= SHORTEST_OWN), key=lambda value: (-len(value), value))
    )


def check_folder(folder: Path, allowed: Sequence[AllowedFinding] = ()) -> None:
    """Refuse a folder in which something must not be published.

    Raises:
        ReleaseError: Names every file, line and kind, one a line, and how to declare a false positive.
    """
    found = scan_folder(folder, allowed)
    if found:
        raise ReleaseError(
            "\n".join(f"{finding}." for finding in found),
            hint="Remove it; or, if it is none, declare it with a reason under release.allowed_findings.",
        )


def scan_folder(folder: Path, allowed: Sequence[AllowedFinding] = ()) -> list[Finding]:
    """Return what must not be published in every text, GGUF string, Parquet text and safetensors metadata below `folder`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    found = [finding for path in paths for finding in scan_file(path, path.relative_to(folder).as_posix())]
    return [finding for finding in found if not any(fnmatchcase(finding.text, entry.text) for entry in allowed)]


def scan_file(path: Path, name: str) -> list[Finding]:
    """Return what must not be published in one file. Weights themselves are numbers and are not read."""
    if path.suffix in (".json", ".jsonl") or path.name.endswith(".index.json"):
        return _scan_json(path, name)
    if path.suffix in TEXT:
        return _scan_lines(path.read_text(encoding="utf-8", errors="replace"), name)
    if path.suffix == ".safetensors":
        return _scan_texts(_safetensors_texts(path), name)
    if path.suffix == ".gguf":
        return _scan_texts(_gguf_texts(path), name)
    if path.suffix == ".parquet":
        return _scan_texts(_parquet_texts(path), name)
    return _scan_texts([(path.read_bytes().decode("latin-1"), False)], name)


def _scan_lines(text: str, name: str, *, private: bool = True) -> list[Finding]:
    found = sorted(_find(text, private), key=lambda match: match[2])
    return [Finding(name, kind, match, text.count("\n", 0, start) + 1) for kind, match, start in found]


def _scan_texts(texts: Iterable[tuple[str, bool]], name: str) -> list[Finding]:
    found = {Finding(name, *match): None for text, private in texts for match in find(text, private=private)}
    return list(found)


def _scan_json(path: Path, name: str) -> list[Finding]:
    """Scan the lines, and the strings as a JSON reader sees them, since an escape can hide what a line holds.

    Single pieces of a tokenizer's vocabulary may well look like the beginning of a path or an address; they are searched for
    secrets alone.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        documents = (
            [json.loads(line) for line in text.split("\n") if line.strip()]
            if path.suffix == ".jsonl"
            else [json.loads(text)]
        )
    except ValueError:
        return _scan_lines(text, name)
    vocabulary = path.name in ("tokenizer.json", "vocab.json")
    found = _scan_lines(text, name, private=not vocabulary)
    held = {(finding.kind, finding.text) for finding in found}
    if path.name == "vocab.json":
        return found
    strings = "\n".join(string for document in documents for string in _strings(document, skip_vocabulary=vocabulary))
    return found + [Finding(name, kind, match) for kind, match in find(strings) if (kind, match) not in held]


def _strings(value: Any, *, skip_vocabulary: bool) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            if not (skip_vocabulary and key in VOCABULARY):
                yield from _strings(inner, skip_vocabulary=skip_vocabulary)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, skip_vocabulary=skip_vocabulary)


def _safetensors_texts(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the header, which holds the metadata and the tensors' names."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = stream.read(min(size, path.stat().st_size)).decode("utf-8", errors="replace")
    yield header, True
    try:
        yield "\n".join(_strings(json.loads(header), skip_vocabulary=False)), True
    except ValueError:
        return


def _gguf_texts(path: Path) -> Iterator[tuple[str, bool]]:
    from gguf import GGUFReader, GGUFValueType

    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, OverflowError) as error:
        raise ReleaseError(f"{path.name} is not a readable GGUF file: {error}.") from error
    for name, field in reader.fields.items():
        yield name, True
        if field.types and field.types[-1] == GGUFValueType.STRING:
            content = field.contents()
            texts = content if isinstance(content, list) else [content]
            yield "\n".join(map(str, texts)), name not in GGUF_VOCABULARY
    yield "\n".join(tensor.name for tensor in reader.tensors), True


def _parquet_texts(path: Path) -> Iterator[tuple[str, bool]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ReleaseError(f"{path.name} is not a readable Parquet file: {error}.") from error
    metadata = file.schema_arrow.metadata or {}
    yield "\n".join(f"{key.decode()} {value.decode(errors='replace')}" for key, value in metadata.items()), True
    for batch in file.iter_batches(batch_size=1024):
        yield "\n".join(_strings(batch.to_pylist(), skip_vocabulary=False)), True
