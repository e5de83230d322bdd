"""Run `gshf-release quantize`: choose weights and texts, refuse early, make one folder a format, measure."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from gshf_release import environments
from gshf_release.data.hashing import sha256_json, sha256_tree, tree
from gshf_release.data.records import Sample
from gshf_release.data.results import Cell, write_cells
from gshf_release.errors import CheckpointError, ReleaseError
from gshf_release.models import checkpoints
from gshf_release.models.checkpoint_files import refuse_code, refuse_pickles
from gshf_release.release import stages
from gshf_release.release.quantization import calibration_text, losses, schemes
from gshf_release.release.quantization import quantize as quantizers
from gshf_release.release.quantization.calibration_text import CalibrationText
from gshf_release.release.quantization.quantize import Work
from gshf_release.release.quantization.schemes import Scheme
from gshf_release.release.rules import require_own
from gshf_release.report.table import Table
from gshf_release.run.context import silent
from gshf_release.run.directory import DOCUMENT, RunDirectory, read_json
from gshf_release.run.stage import Task, iteration_stage

MEASURED, RESULTS, DONE = "measured", "results.json", "made.json"
COLUMNS = (
    ("MB", losses.SIZE, 1),
    ("bits per weight", losses.BITS, 2),
    ("perplexity", losses.PERPLEXITY, 3),
    ("mean KL", losses.KL, 4),
    ("99.9% KL", losses.KL_TAIL, 4),
    ("same top token, %", losses.SAME_TOP, 2),
)


def quantize(
    path: Path,
    wanted: Sequence[str],
    out: Path | None,
    *,
    iteration: int | None,
    text: Path | None,
    calibration: Path | None,
    seed: int,
    threads: int | None,
    say: Callable[[str], None],
) -> tuple[Path, list[Cell]]:
    """Make what is missing; return the folder and the cells of everything in it that was asked for.

    Raises:
        ReleaseError: A scheme, an architecture or a tokenizer does not fit, or a text is missing or used twice.
        EngineError: An environment is not set up.
    """
    chosen = list(dict.fromkeys(schemes.parse(name) for name in wanted))
    if (path / DOCUMENT).is_file():
        run = RunDirectory.open(path)
        require_own(run, "quantize {checkpoint} --text FILE --to SCHEME")
        source, folder, name, texts_of, seed = _run(run, iteration)
        measured_on, calibrated_on = _given(source, text, calibration)
    elif (path / "config.json").is_file():
        source, folder, name = path, path.with_name(f"{path.resolve().name}-quantized"), path.resolve().name
        measured_on, calibrated_on = _given(source, text, calibration)
        texts_of = _no_texts
    else:
        raise CheckpointError(f"{path} is neither a run nor a checkpoint folder.")
    refuse_code(source)
    refuse_pickles(source)
    gptq = any(scheme.kind == "gptq" for scheme in chosen)
    schemes.check(source, chosen)
    for environment in sorted({scheme.environment for scheme in chosen}):
        environments.require(environment)
    measured_on = measured_on or texts_of("test")
    calibrated_on = (calibrated_on or texts_of("validation")) if gptq else None
    if calibrated_on is not None:
        calibration_text.check_apart(measured_on, calibrated_on)
    folder = out or folder
    folder.mkdir(parents=True, exist_ok=True)
    threads = threads or len(os.sched_getaffinity(0))
    cells: list[Cell] = []
    for group in _groups(chosen):
        target = folder / f"{name}-{_suffix(group[0])}"
        identity = _identity(source, group, measured_on, calibrated_on, seed)
        if not _is_done(target, identity):
            say(f"Making {', '.join(scheme.name for scheme in group)} ...")
            shutil.rmtree(target, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".references-") as scratch:
                work = Work(source, name, measured_on, threads, Path(scratch), silent)
                _make(work, group, target, calibrated_on, seed)
            (target / DONE).write_text(json.dumps({"sha256": identity}) + "\n", encoding="utf-8")
        cells += losses.cells(target / MEASURED, f"{target.name}/{MEASURED}")
    write_cells(cells, folder / RESULTS)
    return folder, cells


def tables(cells: Sequence[Cell]) -> list[Table]:
    """Return the losses as a table, one row a file and reference."""
    rows = []
    for key in dict.fromkeys((entry.row, entry.artefact.partition("/")[0]) for entry in cells):
        own = [entry for entry in cells if (entry.row, entry.artefact.partition("/")[0]) == key]
        rows.append([key[0], *(_shown(own, metric, digits) for _, metric, digits in COLUMNS)])
        engine = [entry for entry in own if entry.baseline == losses.IMPLEMENTATION]
        if engine:
            shown = [_shown(engine, metric, digits) for _, metric, digits in COLUMNS]
            rows.append([f"{key[0]} against {losses.IMPLEMENTATION}", *shown])
    notes = list(dict.fromkeys(entry.note for entry in cells if entry.metric == losses.PERPLEXITY))
    notes += [
        f"{entry.row}: {entry.note}" for entry in cells if entry.metric == losses.SIZE and "fell back" in entry.note
    ]
    notes += [f"not run: {name} ({reason})" for name, reason in schemes.NOT_RUN.items()]
    return [Table("Quantizations against BF16", ["file", *(title for title, _, _ in COLUMNS)], rows, notes)]


def _shown(cells: Sequence[Cell], metric: str, digits: int) -> str:
    found = [entry for entry in cells if entry.metric == metric and entry.baseline in ("", quantizers.REFERENCE)]
    found = found or [entry for entry in cells if entry.metric == metric and len({c.baseline for c in cells}) == 1]
    if not found or found[0].value is None:
        return ""
    error = found[0].standard_error
    return f"{found[0].value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _make(work: Work, group: Sequence[Scheme], target: Path, calibration: CalibrationText | None, seed: int) -> None:
    if group[0].kind == "gguf":
        quantizers.make_gguf(work, [scheme.encoding for scheme in group], target, target / MEASURED, engine="llama-cpp")
    else:
        quantizers.make_compressed(work, group[0], target, target / MEASURED, calibration=calibration, seed=seed)


def _groups(chosen: Sequence[Scheme]) -> list[list[Scheme]]:
    gguf = [scheme for scheme in chosen if scheme.kind == "gguf"]
    return [*([gguf] if gguf else []), *([scheme] for scheme in chosen if scheme.kind != "gguf")]


def _suffix(scheme: Scheme) -> str:
    return "GGUF" if scheme.kind == "gguf" else scheme.label


def _identity(
    source: Path, group: Sequence[Scheme], text: CalibrationText, calibration: CalibrationText | None, seed: int
) -> str:
    tuned = [calibration.sha256, seed] if calibration and group[0].kind == "gptq" else []
    packages = sorted({environments.specifications()[scheme.environment].sha256 for scheme in group})
    weights = sha256_tree(tree(source))
    return sha256_json([weights, [scheme.name for scheme in group], text.sha256, text.description, tuned, packages])


def _is_done(target: Path, identity: str) -> bool:
    return (target / DONE).is_file() and read_json(target / DONE).get("sha256") == identity


def _given(
    source: Path, text: Path | None, calibration: Path | None
) -> tuple[CalibrationText | None, CalibrationText | None]:
    if text is None and calibration is None:
        return None, None
    tokenizer = checkpoints.load_tokenizer(source)
    most = calibration_text.CALIBRATION_SEQUENCES * calibration_text.LONGEST
    return (
        None if text is None else calibration_text.of_file(text, tokenizer),
        None if calibration is None else calibration_text.of_file(calibration, tokenizer, most),
    )


def _no_texts(role: str) -> CalibrationText:
    what = {"test": "--text FILE: a text to measure on", "validation": "--calibration FILE: a text for GPTQ"}[role]
    raise ReleaseError("A checkpoint folder has no prompts of its own.", hint=f"Give {what}.")


def _run(run: RunDirectory, iteration: int | None) -> tuple[Path, Path, str, Callable[[str], CalibrationText], int]:
    """Return the released weights of an iteration, where to write, the name, its texts, and the run's seed.

    Raises:
        ReleaseError: The release is not finished.
    """
    number = iteration or stages.final_iteration(run)
    name = stages.repository_name(run.recipe)
    source = run.path / "release" / name / f"iter-{number}"
    plan = {stage.name: stage for stage in run.plan}
    stage = plan.get(f"release/{name}")
    if stage is None or run.manifest(Task(stage)) is None or not source.is_dir():
        raise ReleaseError(
            f"{run.path}: the weights of iteration {number} are not released yet.",
            hint=f"Run: gshf-release publish {run.path} --out DIR",
        )

    def text(role: str) -> CalibrationText:
        answers = plan[iteration_stage(number, f"{role}/answers")]
        rows = Sample.read(*(run.folder(Task(answers, k)) / "samples.parquet" for k in range(answers.shards)))
        where = f"the {role} role, answered by iteration {number}"
        if role == "test":
            return calibration_text.of_samples(rows, role=where, tokens=run.recipe.release.measured_tokens)
        return calibration_text.calibration(rows, role=where, seed=run.recipe.seed)

    return source, run.path / "quantized" / f"iter-{number}", name, text, run.recipe.seed
