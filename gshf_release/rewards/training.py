"""The training of a stand-in scorer from contrasts of the base model's own answers.

The model is a standard Hugging Face checkpoint with one logit: what is trained here on a laptop from contrasts is loaded, and
could be trained, exactly as a 7B reward model would be.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from gshf_release.data import statistics
from gshf_release.data.records import Contrast, ContrastScore, Message
from gshf_release.data.results import Cell, cell
from gshf_release.errors import DataError
from gshf_release.models import checkpoints
from gshf_release.optimization.distributed import split_batch
from gshf_release.recipe import Contrasts, Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.rewards import Inference, bradley_terry
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from gshf_release.rewards.settings import CONTRAST_BASE, KEYS, settings
from gshf_release.rewards.stages import ScorerParameters
from gshf_release.run import input_copies, launch
from gshf_release.run.context import StageContext


def train_reward_model(context: StageContext) -> None:
    """Train a stand-in scorer; a kind of contrast that stays at chance on held-out prompts is dropped and training redone.

    Several processes train, and score what was held out, together; that of rank 0 alone writes.

    Raises:
        DataError: No kind can be learned from these answers.
        RunError: Another number of processes came together than the profile asks for.
    """
    scorer = context.parameters(ScorerParameters).scorer
    chosen = settings(context.recipe, scorer).contrasts
    contrasts = Contrast.read(context.input(f"{scorer}/contrasts", "contrasts.parquet"))
    kinds = [kind for kind in chosen.kinds if any(row.kind == kind for row in contrasts)]
    dropped: list[str] = []
    while True:
        kept = [row for row in contrasts if row.kind in kinds]
        scratch = context.scratch / "+".join(kinds)
        history = _fit(context, chosen, [row for row in kept if not row.held_out], scratch)
        scores = _score_held_out(context, chosen.max_tokens, [row for row in kept if row.held_out])
        at_chance = [kind for kind in kinds if not above_chance(scores, kind)]
        if not at_chance:
            break
        dropped += at_chance
        kinds = [kind for kind in kinds if kind not in at_chance]
        if not kinds:
            raise DataError(
                f"The stand-in {scorer} stays at chance on every kind of contrast: {', '.join(dropped)}.",
                hint="Give it more prompts (prompts.roles), more epochs or another base.",
            )
        if launch.rank() == 0:
            shutil.rmtree(context.output("model"))
    if launch.rank() > 0:
        return
    ContrastScore.write(scores, context.output("held-out.parquet"))
    document = {
        "pairs": history.pairs,
        "too_long": history.too_long,
        "dropped_kinds": dropped,
        "distribution": history.distribution,
        "steps": history.steps,
    }
    context.output("training.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def check_batches(recipe: Recipe, profile: Profile) -> None:
    """Refuse a profile whose processes could not train a scorer of the recipe, before anything runs.

    Raises:
        RecipeError: They do not divide its batch.
    """
    for scorer, key in KEYS.items():
        chosen = settings(recipe, scorer)
        if chosen.trained:
            batch = chosen.contrasts.batch_pairs
            split_batch(batch, batch, profile.world_size, f"{key}.contrasts.batch_pairs")


def accuracy(scores: Sequence[ContrastScore], kind: str | None = None) -> statistics.Estimate:
    """Return the share of held-out pairs in which the better side scores higher; prompts are the clusters."""
    chosen = [row for row in scores if kind in (None, row.kind)]
    hits = [float(row.better_score > row.worse_score) for row in chosen]
    return statistics.clustered_mean(hits, [row.prompt_id for row in chosen])


def above_chance(scores: Sequence[ContrastScore], kind: str) -> bool:
    """Return whether the accuracy of a kind exceeds one half by two standard errors: its own, and those of a fair coin."""
    if not any(row.kind == kind for row in scores):
        return False
    found = accuracy(scores, kind)
    needed: float = 2 * max(found.standard_error or 0.0, math.sqrt(0.25 / found.n))
    return found.value > 0.5 + needed


def reward_training_cells(context: StageContext) -> list[Cell]:
    """Return held-out accuracy per kind and over all kinds, in percent."""
    path = context.output("held-out.parquet")
    training = json.loads(context.output("training.json").read_text(encoding="utf-8"))
    dropped = training["dropped_kinds"]
    place = {
        "table": "scorers",
        "row": context.parameters(ScorerParameters).scorer,
        "unit": "%",
        "artefact": context.run.relative(path),
        "note": f"dropped, at chance: {', '.join(dropped)}" if dropped else "",
    }
    scores = ContrastScore.read(path)
    cells = []
    for kind in ["all", *dict.fromkeys(row.kind for row in scores)]:
        found = statistics.percent(accuracy(scores, None if kind == "all" else kind))
        cells.append(cell(found, metric=f"held-out accuracy: {kind}", **place))
    return cells


def _own_base(context: StageContext, chosen: Contrasts) -> Path:
    """Return the checkpoint that the recipe names for this scorer, or the run's copy of it where it is gone."""
    key = f"{KEYS[context.parameters(ScorerParameters).scorer]}.{CONTRAST_BASE}"
    return input_copies.find_input(
        context.run,
        key,
        chosen.base,
        lambda: checkpoints.locate(chosen.base, revision=chosen.revision, sha256=chosen.sha256),
    )


def _fit(context: StageContext, chosen: Contrasts, rows: Sequence[Contrast], scratch: Path) -> bradley_terry.History:
    """Train from the base and write `model`."""
    own = chosen.base == "base"
    source = context.input("base", "model") if own else _own_base(context, chosen)
    how = bradley_terry.FitSettings(
        learning_rate=chosen.learning_rate,
        epochs=chosen.epochs,
        batch_pairs=chosen.batch_pairs,
        micro_batch_pairs=chosen.batch_pairs,
        precision=chosen.precision,
        max_tokens=chosen.max_tokens,
        layers=chosen.layers,
        seed=context.seed,
        schedule="linear",
        warmup_share=0.1,
        checkpoint_every=50,
    )
    comparisons = [
        bradley_terry.Comparison(f"{row.kind} {row.prompt_id} {row.better}", row.messages, row.better, row.worse)
        for row in rows
    ]
    return bradley_terry.fit(
        source,
        comparisons,
        how,
        context.profile,
        scratch=scratch,
        output=context.output("model"),
        progress=context.progress,
        today=context.today,
        say=context.say,
    )


def _score_held_out(context: StageContext, limit: int, rows: Sequence[Contrast]) -> list[ContrastScore]:
    model = SequenceClassificationReward.open(context.output("model"), Inference.of(context.profile, context.today))
    rows = [row for row in rows if bradley_terry.fits(model.renderer, row.messages, (row.better, row.worse), limit)]
    sides = [
        model.score([[*row.messages, Message(role="assistant", content=text)] for row, text in side])
        for side in ([(row, row.better) for row in rows], [(row, row.worse) for row in rows])
    ]
    return [
        ContrastScore(row.prompt_id, row.kind, float(better), float(worse))
        for row, better, worse in zip(rows, *sides, strict=True)
    ]
