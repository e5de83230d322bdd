"""Adopt what other tools left as a run directory: checkpoints, preference data, benchmark outputs. No row is lost.

    <run>/adopted/<number>-<name>/
      provenance.json     where it stood, what it is, how many rows, and that nothing is known of how it was made
      model/ or rows.parquet + rest.jsonl + original files

Every row of a data file is in `rows.parquet` (its place, its kind, its content as JSON), or, if it is of no known kind, in
`rest.jsonl` with the reason; the original bytes are kept beside them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gshf_release.adoption.checkpoint import TAKEN, refuse_links_out
from gshf_release.adoption.rows import ANNOTATION, kind_of
from gshf_release.data.dataset_files import ColumnUse, place_rows
from gshf_release.data.file_notices import notice
from gshf_release.data.hashing import canonical_json, sha256_tree, tree
from gshf_release.data.preference_scale import EXPECTED, other_scale
from gshf_release.data.printable import one_line
from gshf_release.data.records import Row
from gshf_release.errors import DataError, RunError
from gshf_release.models.checkpoint_files import refuse_code
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from gshf_release.release.staging import link_or_copy
from gshf_release.run.directory import ADOPTED, DOCUMENT, UNFINISHED, RunDirectory, write_json
from gshf_release.run.manifest import write_manifest
from gshf_release.run.stage import Parameters, Stage, Task

UNKNOWN = "unknown"
OUTPUTS = {
    "checkpoint": ("model", "provenance.json"),
    "data": ("rows.parquet", "rest.jsonl", "files", "provenance.json"),
}
DATA = (".jsonl", ".json", ".parquet", ".gz", ".ndjson")


class AdoptedParameters(Parameters):
    """Say where files came from."""

    kind: Literal["checkpoint", "data"]
    provenance: str
    source: str
    """The name of the file or folder."""
    source_sha256: str


@dataclass(frozen=True, slots=True)
class AdoptedRow(Row):
    """One row of another tool's file."""

    place: str
    """File and line or row, relative to the adopted folder."""
    kind: str
    content: str
    """The whole row as canonical JSON."""
    provenance: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """Records what became of one folder or file."""

    stage: str
    kind: str
    rows: int
    """Rows of a known kind."""
    rest: int
    """Rows of none."""


def adopt_files(sources: Sequence[Path], path: Path, name: str) -> list[Adopted]:
    """Make a run of what other tools left behind.

    Args:
        sources: Checkpoint folders, folders of data files, or data files.
        path: The run directory to make.
        name: What it is called.

    Until it is finished the run holds a mark: nothing opens it, and the same command after a kill begins anew.

    Raises:
        RunError: There is a run already, or a source is missing or holds nothing of use.
        DataError: A data file cannot be read at all.
    """
    for source in sources:
        if not source.exists():
            raise RunError(f"{source} does not exist.")
    mark = path / UNFINISHED
    if mark.exists():
        _discard(path)
    if (path / DOCUMENT).exists():
        raise RunError(f"{path} is a run already.", hint="Choose another folder with --run.")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path} exists and is not a run directory.", hint="Choose another folder with --run.")
    path.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        made = _adopt(sources, path, name)
        mark.unlink()
    except BaseException:
        _discard(path)
        raise
    return made


def _discard(path: Path) -> None:
    """Remove what an unfinished adoption left, so that a kill in between leaves nothing at its place."""
    aside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    path.replace(aside)
    shutil.rmtree(aside)


def _adopt(sources: Sequence[Path], path: Path, name: str) -> list[Adopted]:
    scorer = {"model": UNKNOWN}
    document = {"name": name, "base": scorer, "reward": scorer, "evaluation": {"second_scorer": scorer}}
    recipe = parse(Recipe, document, "--name")
    run = RunDirectory.create(path, recipe, Profile())
    made = [_adopt_one(run, recipe, number, source) for number, source in enumerate(sources, 1)]
    write_json(path / "plan.json", {"stages": [stage.as_json() for stage, _ in made]})
    return [found for _, found in made]


def refuse(context: Any) -> None:
    """Stand for the work of an adopted stage, which another tool did.

    Raises:
        RunError: Always; it cannot be done again here.
    """
    raise RunError(
        f"{context.task.label} was adopted and cannot be made again.", hint="Adopt it anew into another run."
    )


def _stage_name(number: int, source: Path) -> str:
    """Return the name of an adopted stage, which is also its folder: characters that no plan may hold become `_`."""
    name = "".join(letter if letter.isprintable() and letter != "\\" else "_" for letter in source.resolve().name)
    return f"{ADOPTED}{number:02d}-{name}"


def _adopt_one(run: RunDirectory, recipe: Recipe, number: int, source: Path) -> tuple[Stage, Adopted]:
    checkpoint = source.is_dir() and (source / "config.json").is_file()
    facts = AdoptedParameters(
        kind="checkpoint" if checkpoint else "data",
        provenance=UNKNOWN,
        source=source.name,
        source_sha256=sha256_tree(tree(source)),
    )
    stage = Stage(
        name=_stage_name(number, source),
        identity="import-files/1",
        work="gshf_release.adoption.run:refuse",
        kind="other",
        outputs=OUTPUTS[facts.kind],
        parameters=facts.as_json(),
    )
    folder = run.folder(Task(stage))
    folder.mkdir(parents=True)
    rows, rest, kinds = (0, 0, "checkpoint") if checkpoint else _data(source, folder)
    if checkpoint:
        refuse_code(source)
        taken = sorted({path for pattern in TAKEN for path in source.glob(pattern)})
        refuse_links_out(source, taken)
        for file in taken:
            link_or_copy(file, folder / "model" / file.name)
    write_json(folder / "provenance.json", {**facts.as_json(), "kinds": kinds, "rows": rows, "rest": rest})
    write_manifest(Task(stage), run, recipe, {})
    return stage, Adopted(stage.name, kinds, rows, rest)


def _data(source: Path, folder: Path) -> tuple[int, int, str]:
    """Store every row of a file or of all data files of a folder; return how many are known, how many not, and the kinds."""
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.suffix in DATA)
    if not files:
        raise RunError(f"{source} holds neither a checkpoint nor data files ({', '.join(DATA)}).")
    root = source.parent if source.is_file() else source
    rows: list[AdoptedRow] = []
    rest: list[dict[str, str]] = []
    for file in files:
        target = folder / "files" / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        use, preferences = ColumnUse(), list[Any]()
        for place, value in _values(file):
            where = place.replace(f"{root}/", "", 1)
            try:
                if isinstance(value, ValueError):
                    raise value
                if not isinstance(value, dict):
                    raise ValueError(f"expected an object, found {type(value).__name__}")
                rows.append(AdoptedRow(where, kind_of(value, use), canonical_json(value), UNKNOWN))
                preferences += [value["preference"]] if rows[-1].kind == ANNOTATION else []
            except (ValueError, TypeError) as error:
                content = "" if isinstance(value, ValueError) else json.dumps(value, ensure_ascii=False, default=str)
                rest.append({"place": where, "reason": str(error), "content": content})
        use.tell(file, use.read, "columns kept whose meaning is not known")
        scale = other_scale(preferences)
        if scale:
            notice(
                f"Warning: {one_line(file)}: its preferences are {scale}; AlpacaEval's go {EXPECTED}. Kept as they are."
            )
    AdoptedRow.write(rows, folder / "rows.parquet")
    lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in rest)
    (folder / "rest.jsonl").write_text("".join(lines), encoding="utf-8")
    return len(rows), len(rest), ", ".join(sorted({row.kind for row in rows})) or "none known"


def _values(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        yield from place_rows(file)
    except DataError as error:
        yield f"{file}", ValueError(error.message)
