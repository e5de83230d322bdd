"""Messages to token ids, once: the ids that are sampled from are the ids that are trained on.

The chat template is the checkpoint's own, applied by transformers; nothing is guessed from a model's name.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from gshf_release.control_tokens import pair_ids, template_ids, text_ids
from gshf_release.errors import CheckpointError
from gshf_release.recipe import Prompts
from gshf_release.records import Message

AS_TEMPLATE = Prompts()
KEYS = ("prompts.empty_system", "prompts.bos", "prompts.control_tokens")
"""The recipe keys that `render` reads."""


def render(tokenizer: Any, messages: Sequence[Message], rules: Prompts = AS_TEMPLATE) -> list[int]:
    """Return the prompt ids of a conversation that waits for the assistant's turn.

    With `control_tokens: text`, a special token inside a message is tokenised as the text it is, and everything around it as
    usual. Conversations without one get the ids that transformers' `apply_chat_template` gives.

    Raises:
        CheckpointError: The tokenizer has no chat template, or no BOS where one is wanted.
    """
    _require_template(tokenizer)
    if rules.empty_system and messages[0]["role"] != "system":
        messages = [Message(role="system", content=""), *messages]
    ids_of = text_ids if rules.control_tokens == "text" else template_ids
    return _with_bos(tokenizer, messages, ids_of(tokenizer, messages, answer_follows=True), rules)


def _with_bos(tokenizer: Any, messages: Sequence[Message], ids: list[int], rules: Prompts) -> list[int]:
    if rules.bos == "template":
        return ids
    bos = tokenizer.bos_token_id
    if bos is None:
        raise CheckpointError(f"The tokenizer has no BOS, which prompts.bos {rules.bos!r} is about.")
    bare = ids[_beginnings(tokenizer, messages) :]
    return [bos, *bare] if rules.bos == "always" and bare[:1] != [bos] else bare


def _beginnings(tokenizer: Any, messages: Sequence[Message]) -> int:
    """Return how many BOS the template puts before the conversation, apart from one that is a token of its first turn.

    In ChatML as SmolLM2 has it, the BOS is the token that begins every turn: there the first is no beginning of the text. It
    is told from one by coming again before later turns, in a template that is given no BOS to write. The messages' own words
    do not count, so they are left out.
    """
    bos = tokenizer.bos_token_id
    words = [Message(role=turn["role"], content="x") for turn in messages]
    plain, without = (template_ids(tokenizer, words, answer_follows=True, **given) for given in ({}, {"bos_token": ""}))
    leading, written = (len(list(itertools.takewhile(lambda token: token == bos, ids))) for ids in (plain, without))
    begins_turns = written > 0 and bos in without[written:]
    return leading - 1 if begins_turns else leading


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


class ConversationRenderer:
    """Renders whole conversations as a reward model reads them: in its own tokenizer and template, never the policy's.

    A template that refuses a system turn (Mistral-Instruct's), or drops it without a word, gets the system text as the first
    paragraph of the first user turn instead; `folded` counts those conversations. Without a chat template (encoders such as
    BERT) the ids are the tokenizer's text pair of everything before the last turn, and the last turn.

    Control tokens inside a message are text here whatever the recipe says of prompts: a response must not be able to end its
    turn, or to open another, in what the reward model reads.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self.folds_system = self.has_template and not _reads_system_turn(tokenizer)
        self.folded = 0

    def ids(self, messages: Sequence[Message], *, answer_follows: bool = False) -> list[int]:
        """Return the ids of a conversation.

        Args:
            messages: The turns.
            answer_follows: End where the assistant begins to speak, as a prompt does.

        Raises:
            CheckpointError: The template refuses the conversation, for example because its turns do not alternate.
        """
        if not self.has_template:
            *before, last = messages
            context = "\n".join(turn["content"] for turn in before)
            return pair_ids(self.tokenizer, context, last["content"])
        if self.folds_system and messages[0]["role"] == "system":
            messages = fold_system(messages)
            self.folded += 1
        try:
            return text_ids(self.tokenizer, messages, answer_follows=answer_follows)
        except _template_errors() as error:
            roles = ", ".join(turn["role"] for turn in messages)
            reason = " ".join(str(error).split()).rstrip(".")
            raise CheckpointError(
                f"The chat template of {self.tokenizer.name_or_path!r} refuses a conversation of the turns {roles}: {reason}.",
                hint="Give conversations that this reward model can read, or another reward model.",
            ) from error

    def length(self, messages: Sequence[Message]) -> int:
        """Return how many tokens a conversation has; it is not counted as folded."""
        folded = self.folded
        try:
            return len(self.ids(messages))
        finally:
            self.folded = folded

    def text(self, messages: Sequence[Message], *, answer_follows: bool = False) -> str:
        """Return a conversation as the model reads it, control tokens included."""
        return str(self.tokenizer.decode(self.ids(messages, answer_follows=answer_follows)))


def conversation_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the ids of one whole conversation; see `ConversationRenderer`."""
    return ConversationRenderer(tokenizer).ids(messages)


def template_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Return a whole conversation as the chat template writes it.

    It is for checks of templates alone: tokenised again it may be other ids than those of the conversation.
    """
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False))


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with its system text as the first paragraph of the first user turn.

    Conversations without a system turn, or without a user turn after it, come back as they are.
    """
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return list(messages)
    system, first, *rest = messages
    text = f"{system['content']}\n\n{first['content']}" if system["content"] else first["content"]
    return [Message(role="user", content=text), *rest]


def _reads_system_turn(tokenizer: Any) -> bool:
    """Return whether the template accepts a system turn and its text reaches the ids."""
    asked = [Message(role="user", content="Why?"), Message(role="assistant", content="So.")]
    try:
        one, other = (
            template_ids(tokenizer, [Message(role="system", content=text), *asked], answer_follows=False)
            for text in ("red", "blue")
        )
    except _template_errors():
        return False
    return one != other


def _template_errors() -> tuple[type[Exception], ...]:
    """Return what a chat template raises when it refuses a conversation."""
    from jinja2 import TemplateError

    return (TemplateError, TypeError)


def _require_template(tokenizer: Any) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise CheckpointError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no chat template.",
            hint="Use an instruction-tuned base model, or add chat_template.jinja to its folder.",
        )
