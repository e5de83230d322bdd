"""The run directory *is* the run. Paths below it, its identity, its journal and its locks.

    runs/<name>/
      run.json            name and format of the run
      recipe.yaml         the recipe as resolved; profile.yaml: the profile of the last command
      plan.json           the declared stages
      journal.jsonl       what happened when: seconds and other volatile facts
      results/<stage>.json, results.json
      inputs/<key>/       copies of small files that the recipe names and later commands read
      <stage>/            outputs and manifest.json; <stage>/shard-000/ for a sharded stage

No absolute path is stored: a moved run works.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gshf_release.data import documents, locks
from gshf_release.errors import DataError, RunBusyError, RunError
from gshf_release.recipe import Recipe, parse, read_mapping
from gshf_release.recipe.differences import differences
from gshf_release.recipe.profile import Profile
from gshf_release.run import schema
from gshf_release.run.stage import RESULTS, Stage, Task

FORMAT = 1
DOCUMENT = "run.json"
ADOPTED = "adopted/"
"""Begins the names of stages that `adopt` made of files from elsewhere."""
CHANGED_RECIPE = "recipe changed"
"""Event of the journal: `keys` has `{dotted key: [then, now]}`."""
OWN_FOLDERS = (".locks", "inputs", "results", "evaluations")
"""Of a run, which hold small files that commands write and remove."""
UNFINISHED = "adopt.partial"
"""In a run that `adopt` has begun to make and not finished."""


def write_text(path: Path, text: str) -> None:
    """Write a small file so that readers see either the old or the new content, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    if temporary.is_symlink():  # somebody put it there, to have another file written
        temporary.unlink()
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and two-space indent, atomically."""
    write_text(path, _json(value))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        OSError: It cannot be read.
        DataError: It is not JSON, or no object.
    """
    try:
        value = documents.read_json(path)
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise _damaged(path, "it holds no object")
    return value


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged: {reason}.", hint="Run the command that made it again.")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run."""

    path: Path

    @classmethod
    def create(cls, path: Path, recipe: Recipe, profile: Profile) -> RunDirectory:
        """Open or begin the run of `recipe` at `path` and record recipe and profile.

        Raises:
            RunError: The folder holds a run of another name, or something that is no run.
        """
        run = cls(path)
        _refuse_links(path)
        if path.exists() and not (path / DOCUMENT).exists() and not _only_begun(path):
            raise RunError(f"{path} exists and is not a run directory.", hint="Choose another folder with --run.")
        path.mkdir(parents=True, exist_ok=True)
        if (path / DOCUMENT).exists():
            name = run.document["name"]
            if name != recipe.name:
                raise RunError(
                    f"{path} is the run {name!r}, the recipe is called {recipe.name!r}.",
                    hint="Choose another folder with --run, or the recipe of that run.",
                )
        else:
            run.record(recipe, profile)
            write_json(path / DOCUMENT, {"format": FORMAT, "name": recipe.name})  # last: it makes the folder a run
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return the existing run at `path`.

        Raises:
            RunError: There is no run.
        """
        if not (path / DOCUMENT).is_file():
            seeds = list(seed_runs(path).values())
            if seeds:
                raise RunError(f"{path} holds the runs of {len(seeds)} seeds.", hint=f"Name one, such as {seeds[0]}.")
            raise RunError(f"{path} is not a run directory.", hint="Begin one with: gshf-release train RECIPE")
        if (path / UNFINISHED).exists():
            raise RunError(f"{path} is half an adoption.", hint="The same adopt command again makes it whole.")
        _refuse_links(path)
        return cls(path)

    @property
    def document(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
            RunError: It is damaged, or of another format.
        """
        path = self.path / DOCUMENT
        try:
            document = read_json(path)
        except ValueError as error:
            raise RunError(f"{path} is damaged.", hint="Restore it, or begin another run.") from error
        if document.get("format") != FORMAT:
            raise RunError(f"{path} has the format {document.get('format')!r}; this version reads {FORMAT}.")
        if not isinstance(document.get("name"), str):
            raise RunError(f"{path} is damaged: it names no run.", hint="Restore it, or begin another run.")
        return document

    @property
    def recipe(self) -> Recipe:
        """The recipe this run was last started with."""
        path = self.path / "recipe.yaml"
        return parse(Recipe, read_mapping(path), str(path))

    @property
    def profile(self) -> Profile:
        """The profile of the last command."""
        path = self.path / "profile.yaml"
        return parse(Profile, read_mapping(path), str(path))

    @property
    def plan(self) -> list[Stage]:
        """The stages as last declared.

        Raises:
            DataError: `plan.json` is damaged, or names what no run holds.
        """
        path = self.path / "plan.json"
        if not path.exists():
            return []
        document = read_json(path)
        try:
            return schema.stages(document)
        except ValueError as error:
            raise _damaged(path, str(error)) from error

    def record(self, recipe: Recipe, profile: Profile) -> None:
        """Store what the run is executed with, for workers, `eval` and `verify`."""
        self.record_recipe(recipe)
        self.record_profile(profile)

    def record_recipe(self, recipe: Recipe) -> None:
        """Store the recipe as resolved."""
        write_text(self.path / "recipe.yaml", _yaml(recipe))

    def record_profile(self, profile: Profile) -> None:
        """Store the profile of this command."""
        write_text(self.path / "profile.yaml", _yaml(profile))

    def stage_sha256(self, stage: Stage, file: str) -> str:
        """Return the recorded sha256 of an output of an unsharded stage, or an empty text if it has not finished."""
        manifest = self.manifest(Task(stage))
        return "" if manifest is None else str(manifest["outputs"][file]["sha256"])

    def folder(self, task: Task) -> Path:
        """The folder of a task's outputs."""
        base = self.path / task.stage.name
        return base if task.stage.shards == 1 else base / f"shard-{task.shard:03d}"

    def partial(self, task: Task) -> Path:
        """Return where a task writes before its outputs are renamed into place; a kill leaves it, the next try empties it."""
        return self.folder(task) / ".partial"

    def scratch(self, task: Task) -> Path:
        """Return what survives a kill of the task, such as optimisation checkpoints; removed when it finishes."""
        return self.folder(task) / ".scratch"

    def stop_file(self, task: Task) -> Path:
        """The file whose appearance asks the task's processes, on whatever machines, to save and stop."""
        return self.path / ".locks" / f"{self.relative(self.folder(task)).replace('/', '.')}.stop"

    def results(self, stage: Stage) -> Path:
        """The file of a stage's cells."""
        return self.path / RESULTS / f"{stage.name.replace('/', '.')}.json"

    def manifest_path(self, task: Task) -> Path:
        """The file whose presence says that the task has finished."""
        return self.folder(task) / "manifest.json"

    def manifest(self, task: Task) -> dict[str, Any] | None:
        """Return a task's manifest, or None if it has not finished (or its manifest is damaged)."""
        try:
            document = read_json(self.manifest_path(task))
        except (FileNotFoundError, ValueError):  # not JSON, or not even text
            return None
        return document if schema.is_manifest(document) else None

    def relative(self, path: Path) -> str:
        """Return a path of this run as it is stored: relative, with forward slashes."""
        return path.relative_to(self.path).as_posix()

    def log(self, event: str, **facts: Any) -> None:
        """Append one line to the journal."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}, ensure_ascii=False)
        with (self.path / "journal.jsonl").open("ab+") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end and os.pread(stream.fileno(), 1, end - 1) != b"\n":  # a kill cut the last line
                line = "\n" + line
            stream.write(f"{line}\n".encode())

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal's entries; a line cut by a kill, or that is no entry, is skipped: no number depends on it."""
        path = self.path / "journal.jsonl"
        entries = []
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            with contextlib.suppress(ValueError):  # not JSON, or not even text
                entries.append(documents.parse_json(line.decode("utf-8")))
        return [entry for entry in entries if schema.is_journal_entry(entry)]

    @contextlib.contextmanager
    def short_lock(self, name: str) -> Iterator[None]:
        """Wait for and hold a lock that nobody holds for long, such as that of `results.json`."""
        path = self.path / ".locks" / f"{name}.short"
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            locks.wait_for(stream)
            yield

    @contextlib.contextmanager
    def work_on(self, recipe: Recipe, profile: Profile, stages: list[Stage]) -> Iterator[None]:
        """Record what the run is executed with, and keep it recorded: several processes may work on the same recipe.

        Raises:
            RunBusyError: Another process works on this run with another recipe.
        """
        path = self.path / ".locks" / "recipe.lock"
        path.parent.mkdir(exist_ok=True)
        with path.open("a+", encoding="utf-8") as stream:  # NFS wants to read what it locks for several
            if not self._records(recipe, stages):
                if not locks.take(stream):
                    raise self._other_recipe()
                self._log_changes(recipe)
                self.record_recipe(recipe)
                write_text(self.path / "plan.json", _plan(stages))
            locks.share(stream)
            if not self._records(recipe, stages):  # changed by another process before the lock was ours
                raise self._other_recipe()
            self.record_profile(profile)
            yield

    def _log_changes(self, recipe: Recipe) -> None:
        """Note in the journal which keys of the recipe are about to change, with both values."""
        path = self.path / "recipe.yaml"
        if path.is_file():
            changes = differences(read_mapping(path), recipe.model_dump(mode="json"))
            if changes:
                self.log(CHANGED_RECIPE, keys=changes)

    def _records(self, recipe: Recipe, stages: list[Stage]) -> bool:
        wanted = {"recipe.yaml": _yaml(recipe), "plan.json": _plan(stages)}
        files = {name: self.path / name for name in wanted}
        return all(path.is_file() and path.read_text(encoding="utf-8") == wanted[name] for name, path in files.items())

    def _other_recipe(self) -> RunBusyError:
        return RunBusyError(
            f"{self.path} is being worked on with another recipe.",
            hint="Wait for that process or stop it, or choose another folder with --run.",
        )

    @contextlib.contextmanager
    def lock(self, task: Task) -> Iterator[int]:
        """Hold the lock of one task; the system releases it if the process dies.

        Raises:
            RunBusyError: Another process holds it.
        """
        path = self.path / ".locks" / f"{self.relative(self.folder(task)).replace('/', '.')}.lock"
        path.parent.mkdir(exist_ok=True)
        with path.open("a+", encoding="utf-8") as stream:
            if not locks.take(stream):
                stream.seek(0)
                holder = stream.read().strip() or "another process"
                raise RunBusyError(
                    f"{task.label} of {self.path} is being worked on by {holder}.",
                    hint="Wait for it or stop it; the same command then goes on from there.",
                )
            stream.seek(0)
            stream.truncate()
            stream.write(f"process {os.getpid()} on {socket.gethostname()}")
            stream.flush()
            yield stream.fileno()


def _refuse_links(run: Path) -> None:
    """Refuse a run whose own small files are links: a command that writes them would write, or remove, what they point to.

    Folders of stages may be links, to another disk for example.

    Raises:
        RunError: Names the link.
    """
    if not run.is_dir():
        return
    entries = [path for path in run.iterdir() if path.name in OWN_FOLDERS or not path.is_dir()]
    for folder in OWN_FOLDERS:
        entries += (run / folder).rglob("*")
    for path in entries:
        if path.is_symlink():
            raise RunError(
                f"{path} is a link, and commands write there.", hint="Put the file or folder itself in its place."
            )


def is_adopted(run: RunDirectory) -> bool:
    """Return whether a run was made by `adopt`, so that the provenance of what it holds is not known."""
    return any(stage.name.startswith(ADOPTED) for stage in run.plan)


def seed_runs(path: Path) -> dict[int, Path]:
    """Return `{seed: run directory}` of a parent that `train --seeds` made, in order; empty for anything else."""
    if (path / DOCUMENT).is_file():
        return {}
    found = {
        int(folder.name.removeprefix("seed-")): folder
        for folder in path.glob("seed-*")
        if re.fullmatch(r"seed-[0-9]{1,18}", folder.name) and (folder / DOCUMENT).is_file()
    }
    return dict(sorted(found.items()))


def _only_begun(path: Path) -> bool:
    """Return whether a folder holds nothing but what a kill at the very beginning of a run leaves behind."""
    begun = ("recipe.yaml", "profile.yaml")
    return all(entry.name in begun or entry.name.endswith(".partial") for entry in path.iterdir())


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _plan(stages: list[Stage]) -> str:
    return _json({"stages": [stage.as_json() for stage in stages]})


def _yaml(document: Recipe | Profile) -> str:
    return yaml.safe_dump(document.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
