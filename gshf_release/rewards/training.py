"""Bradley-Terry training of a sequence-classification reward model, on TRL's RewardTrainer.

The model is a standard Hugging Face checkpoint with one logit: what is trained here on a laptop from contrasts is loaded, and
could be trained, exactly as a 7B reward model would be.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gshf_release import checkpoints, statistics
from gshf_release.errors import DataError
from gshf_release.recipe import Contrasts
from gshf_release.records import Contrast, ContrastScore, Message
from gshf_release.rendering import conversation_ids
from gshf_release.results import Cell, cell
from gshf_release.rewards import Inference
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from gshf_release.rewards.settings import settings
from gshf_release.run.context import StageContext


def train(context: StageContext) -> None:
    """Train a stand-in scorer; a kind of contrast that stays at chance on held-out prompts is dropped and training redone.

    Raises:
        DataError: No kind can be learned from these answers.
    """
    scorer = context.parameter("scorer")
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
        shutil.rmtree(context.output("model"))
    ContrastScore.write(scores, context.output("held-out.parquet"))
    document = {"pairs": history["pairs"], "too_long": history["too_long"], "dropped_kinds": dropped}
    document["steps"] = [{"loss": entry["loss"], "accuracy": entry["accuracy"]} for entry in history["steps"]]
    context.output("training.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


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


def numbers(context: StageContext) -> list[Cell]:
    """Return held-out accuracy per kind and over all kinds, in percent."""
    path = context.output("held-out.parquet")
    training = json.loads(context.output("training.json").read_text(encoding="utf-8"))
    dropped = training["dropped_kinds"]
    place = {
        "table": "scorers",
        "row": context.parameter("scorer"),
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


def _base(context: StageContext, chosen: Contrasts) -> Path:
    if chosen.base == "base":
        return context.input("base", "model")
    return checkpoints.locate(chosen.base, sha256=chosen.sha256)


def _fit(context: StageContext, chosen: Contrasts, rows: Sequence[Contrast], scratch: Path) -> dict[str, Any]:
    """Train from the base, write `model`, and return the history."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    from gshf_release.resumption import Resumable, common_arguments, run_trainer, training_order

    device = checkpoints.device_of(context.profile.device)
    source = _base(context, chosen)
    set_seed(context.seed)
    model = checkpoints.load_model(source, "fp32", device, head="reward", layers=chosen.layers, new_head=True)
    tokenizer = checkpoints.load_tokenizer(source)
    if tokenizer.pad_token == tokenizer.eos_token and tokenizer.unk_token is not None:
        tokenizer.pad_token = tokenizer.unk_token  # the last token that is not padding is scored: EOS must count
    encoded = [_encode(tokenizer, row) for row in rows]
    fitting = [entry for entry in encoded if max(map(len, entry[1:])) <= chosen.max_tokens]
    if not fitting:
        raise DataError("No contrast pair fits reward.contrasts.max_tokens.", hint="Raise it.")
    lengths = [len(better) + len(worse) for _, better, worse in fitting]
    order = training_order(
        [key for key, _, _ in fitting], lengths, epochs=chosen.epochs, batch=chosen.batch_pairs, seed=context.seed
    )
    dataset = Dataset.from_list(
        [{"chosen_ids": fitting[index][1], "rejected_ids": fitting[index][2]} for index in order]
    )
    arguments = common_arguments(
        scratch=scratch,
        device=device,
        batch=chosen.batch_pairs,
        micro_batch=chosen.batch_pairs,
        examples=len(dataset),
        learning_rate=chosen.learning_rate,
        schedule="linear",
        warmup_share=0.1,
        precision=chosen.precision,
        checkpoint_every=50,
    )
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(**arguments, max_length=None, gradient_checkpointing=False),
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[Resumable(context.progress)],
    )
    steps = run_trainer(trainer, scratch)
    checkpoints.save(trainer.accelerator.unwrap_model(trainer.model), tokenizer, context.output("model"))
    return {"steps": steps, "pairs": len(fitting), "too_long": len(encoded) - len(fitting)}


def _encode(tokenizer: Any, row: Contrast) -> tuple[str, list[int], list[int]]:
    sides = [
        conversation_ids(tokenizer, [*row.messages, Message(role="assistant", content=text)])
        for text in (row.better, row.worse)
    ]
    return f"{row.kind} {row.prompt_id} {row.better}", sides[0], sides[1]


def _score_held_out(context: StageContext, limit: int, rows: Sequence[Contrast]) -> list[ContrastScore]:
    model = SequenceClassificationReward.open(context.output("model"), Inference.of(context.profile))
    rows = [row for row in rows if max(map(len, _encode(model.tokenizer, row)[1:])) <= limit]
    sides = [
        model.score([[*row.messages, Message(role="assistant", content=text)] for row, text in side])
        for side in ([(row, row.better) for row in rows], [(row, row.worse) for row in rows])
    ]
    return [
        ContrastScore(row.prompt_id, row.kind, float(better), float(worse))
        for row, better, worse in zip(rows, *sides, strict=True)
    ]
