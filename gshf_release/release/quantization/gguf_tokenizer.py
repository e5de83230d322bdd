"""The tokenizer of a checkpoint as GGUF says it: byte-level BPE (`gpt2`) or SentencePiece's BPE (`llama`).

llama.cpp's `llama` tokenizer has no merges: it joins whichever neighbours make the token with the highest score. That is the
BPE of tokenizer.json if every way to make a token from two others is a merge, and the merges come token by token; what is not
so is refused.

Source of key names and token types: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from gguf import GGUFWriter
from gguf.constants import TokenType

from gshf_release.data.records import Message
from gshf_release.errors import CheckpointError, ReleaseError
from gshf_release.models.checkpoint_files import read_object
from gshf_release.models.gguf_loading import LLAMA_3

PRE_TOKENIZERS = {
    ("ByteLevel",): "gpt-2",
    ("Digits(individual)", "ByteLevel"): "smollm",
    ("Split(llama-bpe)", "ByteLevel(plain)"): "llama-bpe",
}
"""From the steps of `pre_tokenizer` in tokenizer.json, as `_describe_step` spells them, to llama.cpp's name."""
_STEPS_OF_LLAMA_3 = ("Split(llama-bpe)", "ByteLevel(plain)")
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
SPACE = "\u2581"
"""SentencePiece's mark of a space."""
NEAREST = "The nearest that fits is the BF16 weights alone: set release.gguf to []."
REACH = "Fitting tokenizers are byte-level BPE (GPT-2, SmolLM, Llama 3) and SentencePiece BPE (Llama 2, Mistral)."


@dataclass(frozen=True)
class Vocabulary:
    """`tokens[i]`, `types[i]` and, for SentencePiece, `scores[i]` belong to token id i."""

    model: str
    """llama.cpp's name: `gpt2` or `llama`."""
    tokens: list[str]
    types: list[TokenType]
    post_processor: dict[str, Any]
    merges: list[str] = field(default_factory=list)
    pre_tokenizer: str = "default"
    scores: list[float] = field(default_factory=list)
    space_prefix: bool = False
    """Whether a space is put before a text, and after every control token."""

    def find(self, token: str | dict[str, Any] | None) -> int | None:
        """Return the id of a token as tokenizer_config.json spells it (text, or an object with `content`)."""
        text = token.get("content") if isinstance(token, dict) else token
        return self.tokens.index(text) if text in self.tokens else None


def read_vocabulary(checkpoint: Path, size: int) -> Vocabulary:
    """Read tokenizer.json; ids the model has and the tokenizer does not become unused `[PAD<id>]` tokens.

    Raises:
        ReleaseError: llama.cpp has no such tokenizer.
    """
    tokenizer = read_json(checkpoint / "tokenizer.json")
    sentence_piece = bool((tokenizer.get("model") or {}).get("byte_fallback"))
    if sentence_piece:
        _check_sentence_piece(tokenizer)
    else:
        _check_byte_level(tokenizer)
    pre_tokenizer = "default" if sentence_piece else _pre_tokenizer_name(tokenizer)
    tokens = [f"[PAD{token_id}]" for token_id in range(size)]
    types = [TokenType.UNUSED] * size
    for token_id, text, token_type in _numbered_tokens(tokenizer):
        if token_id >= size:
            raise ReleaseError(
                f"GGUF: token {text!r} has id {token_id}, but the model has {size} embedding rows.",
                hint="Resize the embeddings to the tokenizer.",
            )
        tokens[token_id], types[token_id] = text, token_type
    post_processor = tokenizer.get("post_processor") or {}
    pairs = _pairs(tokenizer)
    if not sentence_piece:
        return Vocabulary("gpt2", tokens, types, post_processor, [" ".join(pair) for pair in pairs], pre_tokenizer)
    scores = _scores(pairs, tokens, types)
    prefix = _space_prefix(tokenizer, checkpoint)
    return Vocabulary("llama", tokens, types, post_processor, scores=scores, space_prefix=prefix)


def _pairs(tokenizer: dict[str, Any]) -> list[tuple[str, str]]:
    found = tokenizer["model"]["merges"]
    return [tuple(pair.split(" ", 1) if isinstance(pair, str) else pair) for pair in found]  # type: ignore[misc]


def _numbered_tokens(tokenizer: dict[str, Any]) -> Iterator[tuple[int, str, TokenType]]:
    """Yield id, text and type of every token; the added tokens come last because they override."""
    model = tokenizer["model"]
    fallback = bool(model.get("byte_fallback"))
    for text, token_id in model["vocab"].items():
        yield token_id, text, TokenType.BYTE if fallback and BYTE.fullmatch(text) else TokenType.NORMAL
    for added in tokenizer.get("added_tokens") or []:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        yield added["id"], added["content"], kind
    if fallback and model.get("unk_token") in model["vocab"]:
        yield model["vocab"][model["unk_token"]], model["unk_token"], TokenType.UNKNOWN


def _check_byte_level(tokenizer: dict[str, Any]) -> None:
    """Refuse every tokenizer feature that GGUF's `gpt2` tokenizer model cannot express."""
    model = tokenizer.get("model") or {}
    normalizer = tokenizer.get("normalizer") or {}
    features = {
        f"model {model.get('type')!r}": model.get("type") != "BPE",
        "no byte-level decoder": (tokenizer.get("decoder") or {}).get("type") != "ByteLevel",
        "a normalizer": bool(normalizer.get("normalizers", normalizer)),
        "ignore_merges": bool(model.get("ignore_merges")) != (_steps(tokenizer) == _STEPS_OF_LLAMA_3),
        "subword affixes": bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")),
    }
    if found := [feature for feature, present in features.items() if present]:
        raise ReleaseError(
            f"GGUF: a tokenizer with {join(found)} is not supported.",
            hint=f"{REACH} {NEAREST}",
        )


def _steps(tokenizer: dict[str, Any]) -> tuple[str, ...]:
    section = tokenizer.get("pre_tokenizer") or {"type": "(none)"}
    steps = section["pretokenizers"] if section["type"] == "Sequence" else [section]
    return tuple(_describe_step(step) for step in steps)


def _pre_tokenizer_name(tokenizer: dict[str, Any]) -> str:
    description = _steps(tokenizer)
    if description not in PRE_TOKENIZERS:
        known = "; ".join(f"{name} = {' + '.join(steps)}" for steps, name in PRE_TOKENIZERS.items())
        raise ReleaseError(
            f"GGUF: pre-tokenizer {' + '.join(description)} is not supported.", hint=f"Known: {known}. {NEAREST}"
        )
    return PRE_TOKENIZERS[description]


def _describe_step(step: dict[str, Any]) -> str:
    """Spell one pre-tokenizer step; only the spellings of `PRE_TOKENIZERS` are ever matched."""
    kind = str(step["type"])
    if kind == "Split" and step.get("pattern") == {"Regex": LLAMA_3} and step.get("behavior") == "Isolated":
        return "Split(llama-bpe)" if not step.get("invert") else "Split(inverted)"
    if kind == "ByteLevel" and not step.get("use_regex", True) and not step.get("add_prefix_space", True):
        return "ByteLevel(plain)"
    if kind == "ByteLevel" and step.get("use_regex", True) and not step.get("add_prefix_space", True):
        return kind
    if kind == "Digits" and step.get("individual_digits"):
        return "Digits(individual)"
    options = ", ".join(f"{key}={value}" for key, value in step.items() if key in ("use_regex", "add_prefix_space"))
    return f"{kind}({options})"


def _check_sentence_piece(tokenizer: dict[str, Any]) -> None:
    """Refuse every feature that GGUF's `llama` tokenizer model cannot express."""
    model = tokenizer["model"]
    missing = [f"<0x{value:02X}>" for value in range(256) if f"<0x{value:02X}>" not in (model.get("vocab") or {})]
    features = {
        f"model {model.get('type')!r}": model.get("type") != "BPE",
        "ignore_merges": bool(model.get("ignore_merges")),
        f"no token {missing[0] if missing else ''}": bool(missing),
        "subword affixes": bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")),
        "no known way to mark spaces": _prefix_scheme(tokenizer) is None,
    }
    if found := [feature for feature, present in features.items() if present]:
        raise ReleaseError(
            f"GGUF: a tokenizer with byte_fallback and {join(found)} is not supported.", hint=f"{REACH} {NEAREST}"
        )


def _prefix_scheme(tokenizer: dict[str, Any]) -> str | None:
    """Return where a space is put before a text: `always` (after each control token too), `first`, `never`; None: unknown.

    Spaces become `SPACE` in the normalizer (Llama 2, Mistral as converted) or in a Metaspace pre-tokenizer (newer files).
    """
    normalizer, before = tokenizer.get("normalizer") or {}, tokenizer.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    kinds = [step["type"] for step in steps]
    replaced = [step for step in steps if step["type"] == "Replace"]
    spaces = all(step.get("pattern") == {"String": " "} and step.get("content") == SPACE for step in replaced)
    prepended = all(step.get("prepend") == SPACE for step in steps if step["type"] == "Prepend")
    if not before and spaces and prepended and kinds in (["Prepend", "Replace"], ["Replace"]):
        return "always" if len(kinds) == 2 else "never"
    if before.get("type") == "Metaspace" and not kinds and before.get("replacement") == SPACE:
        scheme = before.get("prepend_scheme", "always" if before.get("add_prefix_space", True) else "never")
        return str(scheme) if not before.get("split", True) else None
    return None


def _space_prefix(tokenizer: dict[str, Any], checkpoint: Path) -> bool:
    """Tell whether llama.cpp is to put a space before a text and after each control token.

    With `first`, which it does not know, it follows what happens to a rendered conversation: none if that begins with an added
    token, for then transformers adds none anywhere.
    """
    scheme = _prefix_scheme(tokenizer)
    if scheme != "first":
        return scheme == "always"
    from gshf_release.models.chat_template import render_text
    from gshf_release.models.checkpoints import load_tokenizer

    loaded = load_tokenizer(checkpoint)
    if not loaded.chat_template:
        return True
    text = render_text(loaded, [Message(role="user", content="a")], answer_follows=False, today=datetime.now)
    return not text.startswith(tuple(added["content"] for added in tokenizer.get("added_tokens") or ()))


def _scores(pairs: Sequence[tuple[str, str]], tokens: list[str], types: list[TokenType]) -> list[float]:
    """Return scores under which joining neighbours by score does what the merges do.

    Raises:
        ReleaseError: No scores do: two known tokens make a third without a merge, or the merges of two tokens alternate.
    """
    order = list(dict.fromkeys("".join(pair) for pair in pairs))
    rank = {token: number for number, token in enumerate(order)}
    numbers = [rank["".join(pair)] for pair in pairs]
    known = {token for token, kind in zip(tokens, types, strict=True) if kind is TokenType.NORMAL}
    merges = set(pairs)
    for token in sorted(known):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in known and right in known and (left, right) not in merges:
                raise _unscorable(f"{left!r} and {right!r} make the token {token!r} but are no merge")
    if numbers != sorted(numbers):
        raise _unscorable("the merges of different tokens alternate")
    return [-float(rank.get(token, len(order))) if token in known else 0.0 for token in tokens]


def _unscorable(reason: str) -> ReleaseError:
    text = f"GGUF: a tokenizer with byte_fallback whose merges are not SentencePiece's is not supported: {reason}."
    return ReleaseError(text, hint=f"{REACH} {NEAREST}")


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Add the tokens, and what llama.cpp needs to split a text into them."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "gpt2":
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)


def add_special_tokens(writer: GGUFWriter, checkpoint: Path, config: dict[str, Any], vocabulary: Vocabulary) -> None:
    """Add the special ids, the BOS and EOS flags and the chat template.

    The ids at which generation stops come from generation_config.json, as in `generate()`; GGUF has room for
    three (end of sequence, of turn, of message). The other ids are the tokenizer's.
    """
    settings = read_json(checkpoint / "tokenizer_config.json", optional=True)
    generation = read_json(checkpoint / "generation_config.json", optional=True)
    ids = {key: vocabulary.find(settings.get(f"{key}_token")) for key in ("bos", "eos", "pad", "unk")}
    stops = _stop_ids(_first(generation.get("eos_token_id"), config.get("eos_token_id"), ids["eos"]), vocabulary)
    slots: list[tuple[Callable[[int], None], int | None]] = [
        (writer.add_bos_token_id, _first(ids["bos"], config.get("bos_token_id"))),
        *zip((writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), stops, strict=False),
        (writer.add_pad_token_id, _first(ids["pad"], config.get("pad_token_id"))),
        (writer.add_unk_token_id, _first(ids["unk"], config.get("unk_token_id"))),
    ]
    for add, token_id in slots:
        if token_id is not None and 0 <= token_id < len(vocabulary.tokens):
            add(token_id)
    writer.add_add_bos_token(_adds_token("bos", settings, vocabulary))
    writer.add_add_eos_token(_adds_token("eos", settings, vocabulary))
    writer.add_chat_template(_chat_template(checkpoint, settings))


def _stop_ids(setting: int | list[int] | None, vocabulary: Vocabulary) -> list[int]:
    listed = setting if isinstance(setting, list) else [setting]
    stops = [token_id for token_id in listed if token_id is not None and 0 <= token_id < len(vocabulary.tokens)]
    if not stops:
        raise ReleaseError(
            "GGUF: no end-of-sequence token of the vocabulary is set, so an engine would never stop.",
            hint="Set eos_token_id in generation_config.json.",
        )
    if len(stops) > 3:
        raise ReleaseError(f"GGUF: {len(stops)} end tokens are not supported.", hint="Leave at most 3 in eos_token_id.")
    return stops


def _adds_token(key: str, settings: dict[str, Any], vocabulary: Vocabulary) -> bool:
    """Tell whether encoding adds the "bos" or "eos" token.

    As in transformers 5, a flag in tokenizer_config.json rules, otherwise the template in tokenizer.json.
    """
    token_id = vocabulary.find(settings.get(f"{key}_token"))
    if token_id is None:
        return False
    if "add_bos_token" in settings or "add_eos_token" in settings:
        return bool(settings.get(f"add_{key}_token"))
    processor = vocabulary.post_processor
    for step in processor.get("processors", [processor]):
        if template := step.get("single"):
            outer = template[0 if key == "bos" else -1]
            return vocabulary.find(outer.get("SpecialToken", {}).get("id")) == token_id
    return False


def _chat_template(checkpoint: Path, settings: dict[str, Any]) -> str:
    """Return the chat template, "" if there is none; read as bytes so that line ends stay what they are."""
    path = checkpoint / "chat_template.jinja"
    if path.is_file():
        return path.read_bytes().decode()
    template = settings.get("chat_template") or ""
    if isinstance(template, str):
        return template
    return next((entry["template"] for entry in template if entry["name"] == "default"), "")


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """Return a JSON object; an absent optional file is an empty one.

    Raises:
        ReleaseError: The file cannot be read, or holds something else.
    """
    if optional and not path.is_file():
        return {}
    try:
        return read_object(path)
    except CheckpointError as error:
        raise ReleaseError(error.message, hint="GGUF needs a Hugging Face checkpoint folder.") from error


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def join(names: Any) -> str:
    """Return names as a list in a sentence."""
    return ", ".join(names)
