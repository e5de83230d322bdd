"""The release stages of quantizations: one repository of GGUF files, one for each compressed-tensors format.

`release/<repository>-GGUF/main/` is the repository, `measured/` beside it holds the measured tokens that its numbers come from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gshf_release.data.hashing import sha256_file
from gshf_release.data.records import Sample
from gshf_release.data.results import Cell, write_cells
from gshf_release.recipe import Recipe
from gshf_release.release import card, eval_results, manifest, stages
from gshf_release.release.folders import FINAL
from gshf_release.release.quantization import calibration_text, losses, quantize, schemes
from gshf_release.release.quantization.quantize import Work
from gshf_release.run.context import StageContext
from gshf_release.run.directory import read_json
from gshf_release.run.stage import Input, Stage, iteration_row, iteration_stage

GGUF_IDENTITY, COMPRESSED_IDENTITY = "quantize-gguf/1", "quantize-compressed/1"
IDENTITIES = {"write_gguf_files": GGUF_IDENTITY, "write_compressed": COMPRESSED_IDENTITY}
MAIN, MEASURED = "main", "measured"
ANSWERS = "samples.parquet"
TEST, VALIDATION = "test", "validation"
MIXED = "compressed-tensors"
"""What a manifest says of weights whose tensors have the dtypes of that format."""


class QuantizationParameters(stages.WeightsParameters):
    """Say also which formats a repository holds, and what its name ends with."""

    schemes: tuple[str, ...]
    suffix: str


def declare_quantizations(recipe: Recipe, weights: Stage, shown: tuple[Input, ...]) -> list[Stage]:
    """Declare a stage a repository.

    Args:
        recipe: The recipe.
        weights: The stage that releases the BF16 weights.
        shown: What the cards know of.
    """
    released = weights.typed(stages.WeightsParameters)
    answered = [iteration_row(number) for number in range(1, len(released.iterations) + 1)]
    inputs = (Input("base", "source.json"), *(Input(weights.name, file) for file in weights.outputs), *shown)
    test = tuple(Input(f"{row}/{TEST}/answers", ANSWERS) for row in answered)
    validation = tuple(Input(f"{row}/{VALIDATION}/answers", ANSWERS) for row in answered)
    wanted: list[tuple[str, list[str], str, tuple[Input, ...]]] = []
    if recipe.release.gguf:
        wanted.append(("GGUF", list(recipe.release.gguf), "write_gguf_files", ()))
    for name in recipe.release.compressed:
        extra = validation if name.startswith("gptq") else ()
        wanted.append((schemes.parse(name).label, [name], "write_compressed", extra))
    return [
        Stage(
            name=f"{weights.name}-{suffix}",
            identity=IDENTITIES[work],
            work=f"gshf_release.release.quantization.stage:{work}",
            kind="other",
            inputs=(*inputs, *test, *extra),
            outputs=(MAIN, MEASURED),
            keys=(*weights.keys, "release.measured_tokens"),
            parameters=QuantizationParameters(**released.model_dump(), schemes=tuple(names), suffix=suffix).as_json(),
            numbers="gshf_release.release.quantization.stage:quantization_cells",
        )
        for suffix, names, work, extra in wanted
    ]


def write_gguf_files(context: StageContext) -> None:
    """Write the GGUF repository of the final iteration, with the loss of every file."""
    work, iteration = _work(context)
    names = context.parameters(QuantizationParameters).schemes
    schemes.check(work.checkpoint, [schemes.parse(f"gguf:{name}") for name in names])
    files = quantize.make_gguf(work, names, context.output(MAIN), context.output(MEASURED))
    _finish(context, work, iteration, files, card.QUANTIZED, {})


def write_compressed(context: StageContext) -> None:
    """Write the repository of one compressed-tensors format of the final iteration, with its loss."""
    work, iteration = _work(context)
    (scheme,) = (schemes.parse(name) for name in context.parameters(QuantizationParameters).schemes)
    schemes.check(work.checkpoint, [scheme])
    calibration = None
    if scheme.kind == "gptq":
        rows, where = _answers(context, iteration, VALIDATION)
        calibration = calibration_text.calibration(rows, role=where, seed=context.seed)
    files = quantize.make_compressed(
        work, scheme, context.output(MAIN), context.output(MEASURED), calibration=calibration, seed=context.seed
    )
    facts: dict[str, Any] = {"dtype": MIXED, "scheme": scheme.name}
    facts |= {"calibration": calibration.as_json()} if calibration else {}
    _finish(context, work, iteration, files, card.COMPRESSED, facts)


def quantization_cells(context: StageContext) -> list[Cell]:
    """Return the cells of the measured tokens."""
    name = context.task.stage.name
    table = f"{losses.TABLE}: {context.parameters(QuantizationParameters).suffix}"
    return losses.cells(context.output(MEASURED), f"{name}/{MEASURED}", table=table)


def _work(context: StageContext) -> tuple[Work, int]:
    name = stages.repository_name(context.recipe)
    iteration = int(read_json(context.input(f"release/{name}", FINAL))["iteration"])
    rows, where = _answers(context, iteration, TEST)
    profile = context.profile
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    threads = profile.training_threads or profile.threads or here
    checkpoint = context.input(f"release/{name}", f"iter-{iteration}")
    scratch = context.scratch / "references"
    text = calibration_text.of_samples(rows, role=where, tokens=context.recipe.release.measured_tokens)
    return Work(checkpoint, name, text, threads, scratch, context.progress), iteration


def _answers(context: StageContext, iteration: int, role: str) -> tuple[list[Sample], str]:
    rows = Sample.read(*context.inputs(iteration_stage(iteration, f"{role}/answers"), ANSWERS))
    return rows, f"the {role} role, answered by iteration {iteration}"


def _finish(
    context: StageContext, work: Work, iteration: int, files: list[dict[str, Any]], template: str, facts: dict[str, Any]
) -> None:
    folder: Path = context.output(MAIN)
    of, found = context.parameters(QuantizationParameters), quantization_cells(context)
    (folder / eval_results.RESULTS).parent.mkdir()
    write_cells(found, folder / eval_results.RESULTS)
    measured = read_json(context.output(MEASURED) / losses.DOCUMENT)
    chosen = stages.card_of(context, of, iteration)
    shown = {entry["name"]: losses.shown(found, entry["row"]) for entry in files}
    card.write_card(
        chosen,
        folder,
        template,
        files=files,
        losses=shown,
        rows=[entry["row"] for entry in measured["files"]],
        reference=losses.shown(found, quantize.REFERENCE),
        engine=losses.shown(found, quantize.REFERENCE, losses.IMPLEMENTATION),
        text=measured["text"],
        not_run=schemes.NOT_RUN,
        suffix=of.suffix,
        parameters=quantize.parameters(work.checkpoint),
    )
    source = sha256_file(work.checkpoint / manifest.NAME)
    stages.finish(context, folder, {"iteration": iteration, "source_manifest_sha256": source, **facts})
