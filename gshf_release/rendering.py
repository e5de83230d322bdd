"""Messages to token ids, once: the ids that are sampled from are the ids that are trained on.

The chat template is the checkpoint's own, applied by transformers; nothing is guessed from a model's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gshf_release.errors import CheckpointError
from gshf_release.records import Message


def render(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the prompt ids of a conversation that waits for the assistant's turn.

    Raises:
        CheckpointError: The tokenizer has no chat template.
    """
    _require_template(tokenizer)
    ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=True, return_dict=False)
    return [int(token) for token in ids]


def stop_ids(tokenizer: Any, generation_config: Any) -> list[int]:
    """Return the sorted ids that end a response: the tokenizer's EOS and those of the generation config."""
    configured = getattr(generation_config, "eos_token_id", None)
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    found = sorted(int(token) for token in ids if token is not None)
    if not found:
        raise CheckpointError("Neither the tokenizer nor the generation config names an end-of-sequence token.")
    return found


def response_text(tokenizer: Any, completion_ids: Sequence[int], stops: Sequence[int]) -> str:
    """Return a completion as text, without the closing EOS and without other special tokens."""
    kept = list(completion_ids)
    while kept and kept[-1] in stops:
        kept.pop()
    return str(tokenizer.decode(kept, skip_special_tokens=True)).strip()


def conversation_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the ids of a whole conversation as a reward model reads it, in the reward model's own format.

    With a chat template, that is the rendered conversation. Without one (encoders such as BERT) it is the tokenizer's text
    pair of everything before the last turn, and the last turn.
    """
    if getattr(tokenizer, "chat_template", None):
        ids = tokenizer.apply_chat_template(list(messages), tokenize=True, return_dict=False)
        return [int(token) for token in ids]
    *before, last = messages
    context = "\n".join(turn["content"] for turn in before)
    return [int(token) for token in tokenizer(context, last["content"])["input_ids"]]


def _require_template(tokenizer: Any) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise CheckpointError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no chat template.",
            hint="Use an instruction-tuned base model, or add chat_template.jinja to its folder.",
        )
