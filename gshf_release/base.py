"""The base model pi_0 enters the run: copied as safetensors, so that the run stands on its own and can be moved."""

from __future__ import annotations

from pathlib import Path

from gshf_release import checkpoints
from gshf_release.hashing import sha256_tree, tree
from gshf_release.recipe import Recipe
from gshf_release.rendering import render, stop_ids
from gshf_release.run.context import StageContext
from gshf_release.run.directory import write_json
from gshf_release.run.stage import Stage


def declare(recipe: Recipe) -> Stage:
    """Declare the stage that puts out pi_0 as `model`, and where it came from as `source.json`."""
    return Stage(
        name="base",
        work="gshf_release.base:adopt",
        outputs=("model", "source.json"),
        keys=("base",),
    )


def adopt(context: StageContext) -> None:
    """Load the base from wherever the recipe says, check that it can chat, and save it.

    A GGUF file is dequantised to FP32; a checkpoint keeps its own dtype.

    Raises:
        CheckpointError: It is missing or broken, has no chat template or no end-of-sequence token.
    """
    wanted = context.recipe.base
    path = checkpoints.locate(wanted.model, revision=wanted.revision, sha256=wanted.sha256)
    tokenizer = checkpoints.load_tokenizer(path)
    render(tokenizer, [{"role": "user", "content": "Hello"}])
    model = checkpoints.load_model(path, "fp32" if path.suffix == ".gguf" else "auto")
    stop_ids(tokenizer, model.generation_config)
    checkpoints.save(model, tokenizer, context.output("model"))
    write_json(
        context.output("source.json"),
        {
            "model": path.name if Path(wanted.model).expanduser().exists() else wanted.model,
            "revision": wanted.revision,
            "sha256": sha256_tree(tree(path)),
        },
    )
