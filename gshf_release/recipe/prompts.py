"""Define the recipe section of prompts: where they come from, how AI prompts are written, how all are divided into roles."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gshf_release.recipe.parsing import PositiveInt, Section, Share


class Roles(Section):
    """Says how many prompts each of the five disjoint roles gets. No prompt serves two roles."""

    reward: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    second_scorer: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    per_iteration: PositiveInt = 20_000
    validation: PositiveInt = 256
    test: PositiveInt = 512


class Filters(Section):
    """Rules that drop a written prompt; each is counted by its name and can be switched off."""

    minimum_words: Annotated[int, Field(ge=0)] = 3
    """`too short`: fewer words; 0 switches the rule off. Self-instruct drops prompts of three words too."""
    maximum_words: Annotated[int, Field(ge=0)] = 150
    """`too long`: more words; 0 switches the rule off."""
    blacklist: tuple[str, ...] = (
        *("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps"),
        *("draw", "plot", "go to"),
    )
    """`blacklisted word`: words and phrases that mostly ask for what a text model cannot do (self-instruct's list). It drops
    good prompts too, such as one about the plot of a novel; an empty list switches the rule off."""
    leading_punctuation: bool = True
    """`leading punctuation`: begins with an ASCII punctuation mark."""
    leading_non_ascii: bool = False
    """`leading non-ASCII`: begins with a character outside ASCII. Self-instruct drops these, and other languages with them."""
    program_writing: bool = True
    """`program writing`: begins with 'Write a program' or the like, which models tend to put before any task."""
    cut_ending: bool = True
    """`cut ending`: ends in a comma, colon, dash, opening bracket, dots, or in 'and', 'or', 'but' or an article."""


class Writer(Section):
    """Says who writes the AI prompts."""

    model: str = "base"
    """`base` (the run's base model), another model as in `base.model`, or `served:NAME`, a model of the profile's server."""
    revision: str | None = None
    sha256: str | None = None


class Augmentation(Section):
    """AI prompts of the self-instruct type (arXiv 2212.10560), which `gshf-release prompts` writes."""

    target: PositiveInt = 60_000
    """Prompts wanted; as many as the model card of FsfairX-Zephyr-Chat-v0.1 says were used."""
    seeds: str = "seed"
    """A JSONL file of prompts, or a name in training/prompts: what the writer is shown."""
    writer: Writer = Writer()
    shown_seeds: PositiveInt = 6
    """Seeds shown in one request."""
    shown_generated: Annotated[int, Field(ge=0)] = 2
    """Written prompts shown in one request, once there are some; until then more seeds take their place."""
    asked: PositiveInt = (
        12  # assumption: self-instruct stops its completion model after about eight, Alpaca asks for 17
    )
    """New prompts asked for in one request."""
    temperature: Annotated[float, Field(gt=0)] = 1.0  # Alpaca's; self-instruct has 0.7 with a presence penalty of 2
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: PositiveInt = 1024
    requests_per_round: PositiveInt = 32
    """Requests that see the same state of the pool; the unit of resumption."""
    maximum_requests: PositiveInt = 20_000
    """Where to stop if the target is not reached."""
    filters: Filters = Filters()
    similarity: Share = 0.7
    """A prompt is dropped if its ROUGE-L F with a seed, an earlier or an excluded prompt exceeds this."""
    decontaminate: tuple[Literal["alpaca-eval", "mt-bench"], ...] = ("alpaca-eval", "mt-bench")
    """Benchmarks whose prompts, and near-copies of them, are removed."""
    license: str | None = None
    """The Hub's identifier of the licence of the written prompts, for the card of the data set."""


class Prompts(Section):
    """Says where prompts come from and how they are divided."""

    source: str = "seed"
    """Rows of `{"prompt": ...}`, `{"messages": [...]}` or another form of docs/data.md: a JSONL, JSON or Parquet file, a data
    set's folder, or a name in training/prompts."""
    on_bad_row: Literal["fail", "skip"] = "fail"
    """A bad row stops the run with its file and line, or is skipped and counted."""
    system: str | None = None
    """A system turn put before every conversation that has none, in training and evaluation alike."""
    empty_system: bool = False
    """Put an empty system turn before a conversation that has none: some supervised models were trained with one."""
    fold_system: bool = False
    """Make the system text the first paragraph of the first user turn, for a chat template that takes no system turn (Gemma 2,
    Mistral-Instruct). Reward models whose templates take none get it so in any case."""
    bos: Literal["template", "always", "never"] = "template"
    """Whether a prompt begins with the tokenizer's BOS: as its chat template says, exactly once, or not at all. One that begins
    every turn, as `<|im_start|>` does in some models, belongs to the first turn and always stays."""
    control_tokens: Literal["text", "template"] = "text"
    """What the tokenizer's control tokens are inside somebody's message: plain text, or the control tokens themselves, as
    transformers renders them. They are its special tokens, and added tokens that look like one, such as `<tool_call>` and
    `</think>`; strings that are no tokens of their own, as Zephyr's `<|user|>`, are text anyway. Reward models read control
    tokens as text in either case."""
    exclude: tuple[str, ...] = ()
    """Earlier runs (their directories) or JSONL files: prompts used there are not used again."""
    roles: Roles = Roles()
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _one_system_turn(self) -> Self:
        if self.system is not None and self.empty_system:
            raise ValueError("system and empty_system exclude each other")
        if self.fold_system and self.empty_system:
            raise ValueError("fold_system and empty_system exclude each other")
        return self
