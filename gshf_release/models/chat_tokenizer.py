"""Messages to token ids, once: the ids that are sampled from are the ids that are trained on.

The chat template is the checkpoint's own, applied by transformers; nothing is guessed from a model's name.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gshf_release.data.records import Message
from gshf_release.errors import CheckpointError, TemplateError
from gshf_release.models import chat_template
from gshf_release.models.chat_template import Today, render_text
from gshf_release.models.control_tokens import pair_ids, template_ids, text_ids
from gshf_release.recipe import Prompts

AS_TEMPLATE = Prompts()
KEYS = ("prompts.empty_system", "prompts.fold_system", "prompts.bos", "prompts.control_tokens")
"""The recipe keys that `render` reads."""
NO_SYSTEM_TURN = (
    "Set prompts.fold_system to put the system text before the first user turn, or leave the system turn out "
    "(prompts.system: null)."
)


def render(
    tokenizer: Any, messages: Sequence[Message], rules: Prompts = AS_TEMPLATE, *, today: Today = datetime.now
) -> list[int]:
    """Return the prompt ids of a conversation that waits for the assistant's turn.

    With `control_tokens: text`, a control token inside a message is tokenised as the text it is, and everything around it as
    usual. Conversations without one get the ids that transformers' `apply_chat_template` gives.

    Args:
        tokenizer: The policy's.
        messages: The turns.
        rules: The recipe's.
        today: The date that a template is told, if it asks; a run passes its own.

    Raises:
        CheckpointError: The tokenizer has no chat template, or it refuses the conversation; or no BOS where one is wanted.
    """
    chat_template.require(tokenizer)
    turns = turns_of(messages, rules)
    ids_of = text_ids if rules.control_tokens == "text" else template_ids
    try:
        return _with_bos(tokenizer, turns, ids_of(tokenizer, turns, answer_follows=True, today=today), rules, today)
    except TemplateError as error:
        raise TemplateError(error.message, hint=_way_out(tokenizer, turns, today, error.message)) from error


def turns_of(messages: Sequence[Message], rules: Prompts) -> list[Message]:
    """Return the turns that a template gets of a conversation under the recipe's rules."""
    if rules.fold_system:
        return fold_system(messages)
    if rules.empty_system and messages[0]["role"] != "system":
        return [Message(role="system", content=""), *messages]
    return list(messages)


def _way_out(tokenizer: Any, turns: Sequence[Message], today: Today, reason: str) -> str:
    """Return what to do about a template that refuses a conversation: it may be the system turn alone that it refuses."""
    if turns[0]["role"] == "system" and len(turns) > 1:
        try:
            render_text(tokenizer, turns[1:], answer_follows=True, today=today)
        except TemplateError:
            pass
        else:
            return NO_SYSTEM_TURN
    if "tools" in reason:
        return "It is made for the use of tools: give the base the chat_template.jinja for plain conversations."
    return "Mend it, or give the base another chat_template.jinja."


def _with_bos(tokenizer: Any, messages: Sequence[Message], ids: list[int], rules: Prompts, today: Today) -> list[int]:
    if rules.bos == "template":
        return ids
    bos = tokenizer.bos_token_id
    if bos is None:
        raise CheckpointError(f"The tokenizer has no BOS, which prompts.bos {rules.bos!r} is about.")
    bare = ids[_beginnings(tokenizer, messages, today) :]
    return [bos, *bare] if rules.bos == "always" and bare[:1] != [bos] else bare


def _beginnings(tokenizer: Any, messages: Sequence[Message], today: Today) -> int:
    """Return how many BOS the template puts before the conversation, apart from one that is a token of its first turn.

    In ChatML as SmolLM2 has it, the BOS is the token that begins every turn: there the first is no beginning of the text. It
    is told from one by coming again before later turns, in a template that is given no BOS to write. The messages' own words
    do not count, so they are left out.
    """
    bos = tokenizer.bos_token_id
    words = [Message(role=turn["role"], content="x") for turn in messages]
    plain, without = (
        template_ids(tokenizer, words, answer_follows=True, today=today, **given) for given in ({}, {"bos_token": ""})
    )
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

    def __init__(self, tokenizer: Any, today: Today | None = None) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: The reward model's own.
            today: The date that its template is told, if it asks; without one, that of this call.
        """
        now = datetime.now()
        self.tokenizer = tokenizer
        self.today: Today = today or (lambda: now)
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self.folds_system = self.has_template and not _reads_system_turn(tokenizer, self.today)
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
            self.folded += 1
        messages = self._turns(messages)
        try:
            return text_ids(self.tokenizer, messages, answer_follows=answer_follows, today=self.today)
        except TemplateError as error:
            hint = "Give conversations that this reward model can read, or another reward model."
            raise TemplateError(error.message, hint=hint) from error

    def template_text(self, messages: Sequence[Message], *, answer_follows: bool = False) -> str:
        """Return a conversation as the template writes it; it is not counted as folded.

        It is for checks of templates alone: tokenised again it may be other ids than those of the conversation.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        turns = self._turns(messages)
        return render_text(self.tokenizer, turns, answer_follows=answer_follows, today=self.today)

    def _turns(self, messages: Sequence[Message]) -> list[Message]:
        return fold_system(messages) if self.folds_system else list(messages)

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


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with its system text as the first paragraph of the first user turn.

    Conversations without a system turn, or without a user turn after it, come back as they are.
    """
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return list(messages)
    system, first, *rest = messages
    text = f"{system['content']}\n\n{first['content']}" if system["content"] else first["content"]
    return [Message(role="user", content=text), *rest]


def _reads_system_turn(tokenizer: Any, today: Today) -> bool:
    """Return whether the template accepts a system turn and writes its text."""
    asked = [Message(role="user", content="Why?"), Message(role="assistant", content="So.")]
    try:
        one, other = (
            render_text(tokenizer, [Message(role="system", content=text), *asked], answer_follows=False, today=today)
            for text in ("red", "blue")
        )
    except TemplateError:
        return False
    return one != other
