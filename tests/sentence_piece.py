"""A SentencePiece-like tokenizer made on the spot: BPE with byte fallback, spaces as a mark, every possible merge there."""

from __future__ import annotations

from typing import Any

SPACE = "\u2581"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] }}</s>"
    "{% else %}[INST] {{ message['content'] }} [/INST]{% endif %}{% endfor %}"
)


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return ids and merges: pieces grow as prefixes of words, and every way to make one from two others is a merge."""
    from tests import tiny

    words = [f"{SPACE}{word}" for word in sorted(set(tiny.WORDS))]
    grown = [word[:length] for word in words for length in range(2, len(word) + 1)]
    pieces = sorted(dict.fromkeys([SPACE * 2, SPACE * 4, *grown]), key=lambda piece: (len(piece), piece))
    letters = sorted({letter for word in words for letter in word} | set("0123456789.,?!<>/[]|:;'\"()INSTE"))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *pieces, *letters]
    ids = {token: number for number, token in enumerate(tokens)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    return ids, merges


def tokenizer(scheme: str = "prepend") -> Any:
    """Return the tokenizer: `prepend` marks spaces in the normalizer (Llama 2), another value is a Metaspace scheme."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids, merges = vocabulary()
    raw = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if scheme == "prepend":
        raw.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    else:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    raw.decoder = decoders.Sequence(steps)
    raw.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    fast.chat_template = TEMPLATE
    return fast
