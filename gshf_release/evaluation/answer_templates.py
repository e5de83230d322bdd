"""Render a question as a prompt with the tokenizer's chat template, or with one of FastChat's that the user names.

Nothing is guessed from a model's name: FastChat's own matching gives mistral-7b-sft-beta, for one, another template than it was
trained with.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from gshf_release.data.records import Message
from gshf_release.errors import RecipeError
from gshf_release.models.chat_template import Today
from gshf_release.models.chat_tokenizer import render, response_text
from gshf_release.recipe import Prompts

FASTCHAT = "fastchat:"
"""Begins the name of one of FastChat's templates, for example `fastchat:zephyr`."""


class Template(Protocol):
    """Turns a conversation into prompt ids, and the ids of the answer into its text."""

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt of a conversation that waits for the assistant."""
        ...

    def text(self, completion_ids: Sequence[int], stops: Sequence[int]) -> str:
        """Return an answer as text, cut where the template says that it ends."""
        ...


@dataclass(frozen=True, slots=True)
class TokenizerTemplate:
    """The tokenizer's own chat template, under the recipe's rules, as in training."""

    tokenizer: Any
    rules: Prompts
    today: Today = datetime.now

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt's ids."""
        return render(self.tokenizer, messages, self.rules, today=self.today)

    def text(self, completion_ids: Sequence[int], stops: Sequence[int]) -> str:
        """Return the answer up to its EOS."""
        return response_text(self.tokenizer, completion_ids, stops)


@dataclass(frozen=True, slots=True)
class Ending:
    """Says where FastChat cuts an answer: what an environment without the package needs to know of a template."""

    stop_ids: tuple[int, ...]
    stop_texts: tuple[str, ...]

    def cut(self, tokenizer: Any, completion_ids: Sequence[int]) -> str:
        """Return the answer up to the first stop id and stop text, without special tokens.

        As in fastchat.llm_judge.gen_model_answer, a stop text at the very beginning does not count.
        """
        kept = list(completion_ids)
        first = next((place for place, token in enumerate(kept) if token in self.stop_ids), len(kept))
        text = str(tokenizer.decode(kept[:first], spaces_between_special_tokens=False))
        places = [text.find(word) for word in self.stop_texts]
        text = text[: min((place for place in places if place > 0), default=len(text))]
        for special in _special_tokens(tokenizer):
            text = text.replace(special, "")
        return text.strip()


@dataclass(frozen=True, slots=True)
class FastChatTemplate:
    """One of FastChat's conversation templates, tokenised as FastChat's answer generation does."""

    tokenizer: Any
    name: str

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the prompt as FastChat writes it; its system block stands there even if it is empty."""
        conversation = _conversation(self.name)
        for message in messages:
            if message["role"] == "system":
                conversation.set_system_message(message["content"])
            else:
                role = conversation.roles[0 if message["role"] == "user" else 1]
                conversation.append_message(role, message["content"])
        conversation.append_message(conversation.roles[1], None)
        return str(conversation.get_prompt())

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of the prompt with whatever the tokenizer puts before a text (its BOS)."""
        return [int(token) for token in self.tokenizer(self.prompt(messages))["input_ids"]]

    @property
    def ending(self) -> Ending:
        """Return where its answers end."""
        conversation = _conversation(self.name)
        stop = conversation.stop_str or []
        texts = [stop] if isinstance(stop, str) else stop
        return Ending(tuple(conversation.stop_token_ids or ()), tuple(texts))

    def text(self, completion_ids: Sequence[int], stops: Sequence[int]) -> str:
        """Return the answer up to the template's stop ids and stop texts."""
        return self.ending.cut(self.tokenizer, completion_ids)


def check(name: str | None) -> None:
    """Refuse a template that does not exist.

    Raises:
        RecipeError: It is neither None (the tokenizer's) nor one of FastChat's.
    """
    if name is None:
        return
    if not name.startswith(FASTCHAT):
        raise RecipeError(
            f"--template {name!r} is not known.",
            hint=f"Leave it out for the tokenizer's own template, or name one of FastChat's, such as {FASTCHAT}zephyr.",
        )
    _conversation(name.removeprefix(FASTCHAT))


def template(name: str | None, tokenizer: Any, rules: Prompts, today: Today = datetime.now) -> Template:
    """Return the template of a name; None is the tokenizer's own.

    Raises:
        RecipeError: There is no such template.
    """
    check(name)
    if name is None:
        return TokenizerTemplate(tokenizer, rules, today)
    return FastChatTemplate(tokenizer, name[len(FASTCHAT) :])


def _conversation(name: str) -> Any:
    """Return a new conversation of one of FastChat's templates."""
    from fastchat.conversation import conv_templates, get_conv_template

    if name not in conv_templates:
        nearest = difflib.get_close_matches(name, list(conv_templates), n=1)
        hint = f"Did you mean {FASTCHAT}{nearest[0]}?" if nearest else f"Known: {', '.join(sorted(conv_templates))}."
        raise RecipeError(f"FastChat has no template {name!r}.", hint=hint)
    return get_conv_template(name)


def _special_tokens(tokenizer: Any) -> list[str]:
    found: list[str] = []
    for value in tokenizer.special_tokens_map.values():
        found += [str(token) for token in value] if isinstance(value, list) else [str(value)]
    return found
