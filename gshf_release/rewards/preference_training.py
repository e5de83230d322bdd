"""`reward train`: from a preference data set to a reward model, a standard Hugging Face sequence-classification checkpoint.

Where the profile has several training processes, each runs this module on the job that the command left in the scratch folder.

The folder it writes is the checkpoint, with `training.json` (settings, steps, counts), `held-out.parquet` (scores) and
`results.json` (accuracy and calibration with standard errors) beside the weights. `training.json` comes last: it says that the
training finished. What a killed training needs to go on is kept in `.training` inside the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from gshf_release.data import locks
from gshf_release.data.dataset_files import OnBadRow, Rows, data_files
from gshf_release.data.dataset_rows import PREFERENCE_EXAMPLE, Preference, read_rows
from gshf_release.data.hashing import sha256_file, sha256_json, sha256_tree, tree
from gshf_release.data.records import Message, PreferenceScore, Prompt
from gshf_release.data.results import write_cells
from gshf_release.errors import DataError, GshfError, RunBusyError, RunError
from gshf_release.models import checkpoints
from gshf_release.models.batching import leave_processes
from gshf_release.models.chat_template import Today
from gshf_release.optimization.distributed import split_batch
from gshf_release.recipe.profile import Profile
from gshf_release.rewards import Inference, quality
from gshf_release.rewards.bradley_terry import Comparison, FitSettings, History, fit, fits
from gshf_release.rewards.contrasts import seed_share
from gshf_release.rewards.data import parse_preference
from gshf_release.rewards.models import copy_checkpoint
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from gshf_release.run import interrupt, launch, worker_protocol
from gshf_release.run.context import Progress, Say, quiet, silent
from gshf_release.run.directory import read_json, write_json, write_text
from gshf_release.run.lifeline import die_with_launcher
from gshf_release.run.processes import Processes

DOCUMENT = "training.json"
SCRATCH = ".training"
JOB = "job.json"
DATE = "date"
"""In the scratch folder: when the training began."""


@dataclass(frozen=True, slots=True)
class RewardTrainingOptions:
    """Says what decides the result. Where noted, a default is that of RLHFlow's Mistral-7B reward models (mistral_7B_rm.py)."""

    base: str
    """A chat model (folder, Hub id, package) that gets a new head, or a reward model to go on from."""
    revision: str | None = None
    split: str = "train"
    held_out: float = 0.05  # assumption: no source states it
    """Share of prompts kept out of training, for the numbers."""
    seed: int = 0
    learning_rate: float = 5e-6
    """RLHFlow."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """RLHFlow."""
    warmup_share: float = 0.03
    """RLHFlow."""
    epochs: int = 1
    """RLHFlow."""
    batch_pairs: int = 64  # assumption: theirs follows from the number of devices; they accumulate 64 micro-batches
    max_tokens: int = 4096
    """RLHFlow, who truncate on the left; here a pair with a longer side is dropped whole and counted."""
    precision: Literal["bf16", "fp32"] = "bf16"
    layers: int | None = None
    """Keep only the first layers of the body."""


@dataclass(frozen=True, slots=True)
class SplitPreference:
    """A preference with the id of its prompt and its side of the split."""

    prompt_id: str
    preference: Preference
    held_out: bool

    @property
    def comparison(self) -> Comparison:
        """The preference as training reads it; its key depends on its content alone."""
        return Comparison(sha256_json(list(self.preference)), *self.preference)


@dataclass(frozen=True, slots=True)
class Job:
    """One training: what, from what, where."""

    data: Path
    """Preferences: a file, or the folder of a Hub data set."""
    out: Path
    """The folder that becomes the checkpoint."""
    options: RewardTrainingOptions
    profile: Profile
    on_bad_row: OnBadRow = "fail"
    """Whether a bad row stops it, or is counted."""
    checkpoint_every: int = 50
    """Optimiser steps between two checkpoints, if the profile's `checkpoint_minutes` come no sooner."""

    @property
    def scratch(self) -> Path:
        """Return where a killed training leaves what it needs."""
        return self.out / SCRATCH

    @property
    def stop_file(self) -> Path:
        """The file whose appearance asks the processes to save and stop."""
        return self.scratch / "stop"

    def write(self) -> Path:
        """Leave the job for the training processes; return its file."""
        places = {"data": str(self.data.resolve()), "out": str(self.out.resolve())}
        write_json(self.scratch / JOB, asdict(self) | places | {"profile": self.profile.model_dump(mode="json")})
        return self.scratch / JOB

    @classmethod
    def read(cls, path: Path) -> Job:
        """Return what `write` left."""
        found = read_json(path)
        found |= {"data": Path(found["data"]), "out": Path(found["out"])}
        return cls(
            **found | {"options": RewardTrainingOptions(**found["options"]), "profile": Profile(**found["profile"])}
        )


def train(
    data: Path,
    out: Path,
    options: RewardTrainingOptions,
    profile: Profile,
    *,
    on_bad_row: OnBadRow = "fail",
    checkpoint_every: int = 50,
    progress: Progress = silent,
    say: Say = quiet,
) -> dict[str, Any]:
    """Train a reward model and return the content of its `training.json`. The same call again goes on, or has nothing to do.

    Args:
        data: As in `Job`; so are the next five.
        out: The folder that becomes the checkpoint.
        options: What decides the result.
        profile: Where.
        on_bad_row: Whether a bad row stops it, or is counted.
        checkpoint_every: Optimiser steps between two checkpoints.
        progress: Hears of the optimiser steps.
        say: Hears why a training that was stopped begins again.

    Raises:
        DataError: A row is bad, or the split leaves nothing to train or to measure on.
        RecipeError: The processes do not divide the batch.
        RunError: `out` holds something else.
        RunBusyError: Another process trains there.
        Interrupted: Asked to stop; a checkpoint has been saved.
    """
    job = Job(data, out, options, profile, on_bad_row, checkpoint_every)
    split_batch(options.batch_pairs, profile.micro_batch_pairs, profile.world_size)
    rows = _rows(job)
    facts = _facts(job, rows)
    finished = _finished(out, facts)
    if finished is not None:
        return finished
    with _working_in(out, facts) as lock, interrupt.stop_gently():
        if profile.world_size == 1:
            return _work(job, rows, facts, progress, say)
        name = f"reward-{sha256_json(str(out.resolve()))[:12]}"
        command = launch.torchrun([__name__, str(job.write())], name, profile, os.environ)
        with Processes(command, job.stop_file, [lock], say=say, elsewhere=profile.nodes > 1) as processes:
            processes.finish(f"{out}", progress)
    return read_json(out / DOCUMENT)


def main(file: str) -> int:
    """Do the work of one of several training processes; return the exit code."""
    die_with_launcher()
    try:
        job = Job.read(Path(file))
        with interrupt.stop_gently():
            interrupt.watch(job.stop_file)
            checkpoints.prepare(job.profile)
            rows = _rows(job)
            reporter = worker_protocol.reporter_among_others()
            _work(job, rows, _facts(job, rows), reporter.progress, reporter.say)
            leave_processes()
    except GshfError as error:
        worker_protocol.print_marked(worker_protocol.of_error(error))
        return error.exit_code
    return 0


def _rows(job: Job) -> Rows[Preference]:
    return read_rows(
        job.data, parse_preference, example=PREFERENCE_EXAMPLE, on_bad_row=job.on_bad_row, split=job.options.split
    )


def _facts(job: Job, rows: Rows[Preference]) -> dict[str, Any]:
    """Return by what a training is told from another."""
    options = job.options
    return {
        "options": asdict(options) | {"base": checkpoints_name(options.base)},
        "base_sha256": sha256_tree(tree(checkpoints.locate(options.base, revision=options.revision))),
        "data_sha256": sha256_json([sha256_file(file) for file in data_files(job.data, options.split)]),
        "skipped_rows": len(rows.bad),
    }


def _work(job: Job, rows: Rows[Preference], facts: dict[str, Any], progress: Progress, say: Say) -> dict[str, Any]:
    """Train, score what was held out, and publish; of several processes that of rank 0 alone publishes."""
    labelled = divide(rows, job.options)
    history = _fit(job, labelled, progress, say)
    scores, too_long = _score(job, labelled)
    return _publish(job, facts, rows, history, scores, too_long) if launch.rank() == 0 else {}


def checkpoints_name(model: str) -> str:
    """Return a Hub id or package as it is, and of a path of this machine only its last part."""
    path = Path(model).expanduser()
    return path.resolve().name if path.exists() else model


def divide(rows: Rows[Preference], options: RewardTrainingOptions) -> list[SplitPreference]:
    """Return the preferences, held out by their prompt, so that no prompt is on both sides.

    Raises:
        DataError: One side is empty.
    """
    labelled = []
    for preference in rows.values:
        prompt_id = Prompt.of(preference.messages).prompt_id
        labelled.append(SplitPreference(prompt_id, preference, seed_share(options.seed, prompt_id) < options.held_out))
    for side, name in ((True, "held out"), (False, "left to train on")):
        if not any(entry.held_out is side for entry in labelled):
            prompts = len({entry.prompt_id for entry in labelled})
            raise DataError(f"Of {prompts} prompts none is {name}.", hint="Choose another --held-out share.")
    return labelled


def _fit(job: Job, labelled: Sequence[SplitPreference], progress: Progress, say: Say) -> History:
    """Train and write the model into the scratch folder."""
    options, profile = job.options, job.profile
    how = FitSettings(
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_pairs=options.batch_pairs,
        micro_batch_pairs=profile.micro_batch_pairs,
        precision=options.precision,
        max_tokens=options.max_tokens,
        schedule=options.schedule,
        warmup_share=options.warmup_share,
        checkpoint_every=job.checkpoint_every,
        seed=options.seed,
        layers=options.layers,
        activation_checkpointing=profile.activation_checkpointing,
    )
    model = job.scratch / "model"
    if launch.rank() == 0:
        shutil.rmtree(model, ignore_errors=True)
    source = checkpoints.locate(options.base, revision=options.revision)
    comparisons = [entry.comparison for entry in labelled if not entry.held_out]
    return fit(source, comparisons, how, profile, scratch=job.scratch, output=model, progress=progress, say=say)


def _score(job: Job, labelled: Sequence[SplitPreference]) -> tuple[list[PreferenceScore], int]:
    """Return the scores of the held-out preferences that fit, and how many do not.

    Raises:
        DataError: None fits.
    """
    how, options = Inference.of(job.profile, _clock(job)), job.options
    reward = SequenceClassificationReward.open(job.scratch / "model", how)
    outside = [entry for entry in labelled if entry.held_out]
    fitting = [
        entry
        for entry in outside
        if fits(reward.renderer, entry.preference.messages, entry.preference[1:], options.max_tokens)
    ]
    if not fitting:
        raise DataError(
            f"None of {len(outside)} held-out pairs fits max_tokens {options.max_tokens}.", hint="Raise it."
        )
    sides = [
        reward.score([[*entry.preference.messages, Message(role="assistant", content=text)] for entry, text in side])
        for side in (
            [(entry, entry.preference.chosen) for entry in fitting],
            [(entry, entry.preference.rejected) for entry in fitting],
        )
    ]
    scores = []
    for entry, chosen, rejected in zip(fitting, *sides, strict=True):
        tokens = [len(reward.tokenizer.encode(text, add_special_tokens=False)) for text in entry.preference[1:]]
        scores.append(PreferenceScore(entry.prompt_id, float(chosen), float(rejected), tokens[0], tokens[1]))
    return scores, len(outside) - len(fitting)


def _publish(
    job: Job,
    facts: dict[str, Any],
    rows: Rows[Preference],
    history: History,
    scores: list[PreferenceScore],
    too_long: int,
) -> dict[str, Any]:
    """Move the finished model into place, its numbers beside it and the document last."""
    out = job.out
    cells = quality.cells(scores, row=out.name, artefact="held-out.parquet")
    found = quality.calibration(
        [entry.chosen_score - entry.rejected_score for entry in scores], [entry.prompt_id for entry in scores]
    )
    document = facts | {
        "pairs": {
            "read": len(rows.values),
            "trained": history.pairs,
            "held_out": len(scores),
            "too_long": history.too_long + too_long,
        },
        "bad_rows": rows.bad[:20],
        "folded_system_turns": history.folded,
        "world_size": launch.world_size(),
        "distribution": history.distribution,
        "calibration": [entry._asdict() for entry in found.bins],
        "results": [entry.model_dump(exclude_defaults=True) for entry in cells],
        "steps": history.steps,
    }
    copy_checkpoint(out / SCRATCH / "model", out)
    PreferenceScore.write(scores, out / "held-out.parquet")
    write_cells(cells, out / "results.json")
    write_json(out / DOCUMENT, document)
    shutil.rmtree(out / SCRATCH)
    return document


def _finished(out: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return the document of a finished training of the same thing, or None if there is none.

    Raises:
        RunError: The folder holds something else.
    """
    if (out / DOCUMENT).is_file():
        document: dict[str, Any] = json.loads((out / DOCUMENT).read_text(encoding="utf-8"))
        if {name: document.get(name) for name in facts} != facts:
            raise RunError(f"{out} holds a reward model trained otherwise.", hint="Choose another folder with --out.")
        return document
    if out.exists() and not (out / SCRATCH).is_dir() and any(out.iterdir()):
        raise RunError(f"{out} exists and is no reward model in training.", hint="Choose another folder with --out.")
    return None


@contextlib.contextmanager
def _working_in(out: Path, facts: dict[str, Any]) -> Iterator[int]:
    """Hold the scratch folder of this training, begun or to begin; give the descriptor of its lock.

    Raises:
        RunError: A training with other settings or data was begun there.
        RunBusyError: Another process holds it.
    """
    scratch = out / SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "lock").open("a", encoding="utf-8") as lock:
        if not locks.take(lock):
            raise RunBusyError(f"Another process trains in {out}.", hint="Wait for it or stop it.")
        begun = scratch / "begun.json"
        if begun.is_file() and json.loads(begun.read_text(encoding="utf-8")) != facts:
            raise RunError(
                f"{out} holds an unfinished training with other settings or data.",
                hint=f"Choose another folder with --out, or remove {scratch}.",
            )
        write_json(begun, facts)
        if not (scratch / DATE).is_file():
            write_text(scratch / DATE, datetime.now().isoformat(timespec="seconds"))
        yield lock.fileno()


def _clock(job: Job) -> Today:
    """Return the date on which the training began, for a template that writes it: a resumed one gives the same ids."""
    return lambda: datetime.fromisoformat((job.scratch / DATE).read_text(encoding="utf-8").strip())


if __name__ == "__main__":
    launch.end(main(sys.argv[1]))
