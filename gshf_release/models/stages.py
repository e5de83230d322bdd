"""The base model pi_0, and a reference policy of its own if the recipe names one, enter the run.

They are copied as safetensors, so that the run stands on its own and can be moved.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from gshf_release.data.hashing import sha256_tree, tree
from gshf_release.data.records import Message
from gshf_release.errors import CheckpointError
from gshf_release.models import chat_template_checks, checkpoints
from gshf_release.models.chat_tokenizer import KEYS as RENDERING
from gshf_release.models.chat_tokenizer import render, stop_ids
from gshf_release.recipe import Recipe
from gshf_release.run.context import StageContext
from gshf_release.run.directory import write_json
from gshf_release.run.stage import Input, Stage

REFERENCE = "reference"


def declare_base(recipe: Recipe) -> Stage:
    """Declare the stage that puts out pi_0 as `model`, and where it came from as `source.json`."""
    return Stage(
        name="base",
        identity="copy-base/1",
        work="gshf_release.models.stages:copy_base",
        kind="other",
        outputs=("model", "source.json"),
        keys=("base",),
    )


def declare_rendering() -> Stage:
    """Declare the stage that writes down how a prompt is rendered."""
    return Stage(
        name="rendering",
        identity="render-first-prompt/1",
        work="gshf_release.models.stages:write_rendering",
        kind="other",
        inputs=(Input("base", "model"),),
        outputs=("rendering.json",),
        keys=("prompts.system", *RENDERING),
    )


def write_rendering(context: StageContext) -> None:
    """Write an example prompt as text and ids, and what the recipe's switches came to."""
    rules = context.recipe.prompts
    tokenizer = checkpoints.load_tokenizer(context.input("base", "model"))
    system = [] if rules.system is None else [Message(role="system", content=rules.system)]
    ids = render(tokenizer, [*system, Message(role="user", content="Hello")], rules, today=context.today)
    beginnings = len(list(itertools.takewhile(lambda token: token == tokenizer.bos_token_id, ids)))
    write_json(
        context.output("rendering.json"),
        {
            "bos": beginnings,
            "control_tokens": rules.control_tokens,
            "text": tokenizer.decode(ids),
            "ids": ids,
        },
    )


def declare_reference() -> Stage:
    """Declare the stage that puts out the reference policy as `model`, where it is neither pi_0 nor pi_(t-1)."""
    return Stage(
        name=REFERENCE,
        identity="copy-reference/1",
        work="gshf_release.models.stages:copy_reference",
        kind="other",
        inputs=(Input("base", "model"),),
        outputs=("model", "source.json"),
        keys=("loop.reference", "loop.reference_revision"),
    )


def copy_reference(context: StageContext) -> None:
    """Load the reference policy, check that it reads the base's token ids, and save it with where it came from.

    Raises:
        CheckpointError: It is missing or broken, or its tokens are not the base's.
    """
    wanted, revision = context.recipe.loop.reference, context.recipe.loop.reference_revision
    path = checkpoints.locate(wanted, revision=revision)
    tokenizer = checkpoints.load_tokenizer(path)
    if tokenizer.get_vocab() != checkpoints.load_tokenizer(context.input("base", "model")).get_vocab():
        raise CheckpointError(f"The reference {wanted!r} has other tokens than the base.")
    checkpoints.save(checkpoints.load_model(path, "auto"), tokenizer, context.output("model"))
    write_source(path, wanted, revision, context.output("source.json"))


def copy_base(context: StageContext) -> None:
    """Load the base from wherever the recipe says, check that it can chat, and save it.

    A GGUF file is dequantised to FP32; a checkpoint keeps its own dtype.

    Raises:
        CheckpointError: It is missing or broken, has no chat template or one that loses words, or no end-of-sequence token.
    """
    wanted = context.recipe.base
    path = checkpoints.locate(wanted.model, revision=wanted.revision, sha256=wanted.sha256)
    tokenizer = checkpoints.load_tokenizer(path)
    place, rules = chat_template_checks.template_place(path), context.recipe.prompts
    if context.recipe.evaluation.only:  # its benchmarks may bring a template of their own
        render(tokenizer, [{"role": "user", "content": "Hello"}])
    else:
        chat_template_checks.check_policy(
            tokenizer, place, rules, system=rules.system is not None or rules.empty_system
        )
    model = checkpoints.load_model(path, "fp32" if path.suffix == ".gguf" else "auto")
    chat_template_checks.check_turn_end(tokenizer, place, stop_ids(tokenizer, model.generation_config))
    checkpoints.save(model, tokenizer, context.output("model"))
    write_source(path, wanted.model, wanted.revision, context.output("source.json"))


def write_source(path: Path, model: str, revision: str | None, target: Path) -> None:
    """Write what a model was called where it came from, and the content hash of what was found there."""
    named = path.name if Path(model).expanduser().exists() else model
    write_json(target, {"model": named, "revision": revision, "sha256": sha256_tree(tree(path))})
