"""Bradley-Terry training of a sequence-classification reward model on TRL's RewardTrainer.

The loss is -log sigmoid(r(chosen) - r(rejected)). TRL is handed token ids in the order of training, so that it renders nothing
and a killed training goes on to the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gshf_release.data.records import Message
from gshf_release.errors import DataError
from gshf_release.models import checkpoints
from gshf_release.models.chat_template import Today
from gshf_release.models.chat_template_checks import check_reward, template_place
from gshf_release.models.chat_tokenizer import ConversationRenderer
from gshf_release.optimization.dropout import without_dropout
from gshf_release.optimization.fsdp import distributed, gather, running
from gshf_release.optimization.loss_averaging import LOG_TWO, fill_last_step, mean_over_pairs
from gshf_release.recipe.profile import Profile
from gshf_release.run import launch
from gshf_release.run.checkpoint_layout import CheckpointLayout, lay_out
from gshf_release.run.context import Progress, Say, quiet


class Comparison(NamedTuple):
    """Two answers to one conversation, the better one first."""

    key: str
    """Decides the place in the shuffled order: equal data give equal training, whatever the order of their file."""
    messages: Sequence[Message]
    better: str
    worse: str


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Says how a reward model is optimised."""

    learning_rate: float
    epochs: int
    batch_pairs: int
    """Pairs in one optimiser step."""
    micro_batch_pairs: int
    """Pairs in one forward and backward pass."""
    precision: Literal["bf16", "fp32"]
    max_tokens: int
    """Pairs with a longer side are dropped and counted, never truncated."""
    schedule: str
    warmup_share: float
    checkpoint_every: int
    """Optimiser steps between two checkpoints, if the profile's `checkpoint_minutes` come no sooner."""
    seed: int
    layers: int | None = None
    """Keep only the first layers of the body; None keeps all."""
    activation_checkpointing: bool = False


class History(NamedTuple):
    """Records what a training did."""

    pairs: int
    too_long: int
    steps: list[dict[str, float]]
    """Loss and accuracy of every optimiser step."""
    folded: int
    """Conversations whose system turn was folded into the first user turn."""
    distribution: dict[str, Any]
    """How the training processes divided the model, as a `Layout`."""


def fit(
    source: Path,
    comparisons: Sequence[Comparison],
    how: FitSettings,
    profile: Profile,
    *,
    scratch: Path,
    output: Path,
    progress: Progress,
    today: Today | None = None,
    say: Say = quiet,
) -> History:
    """Train from the checkpoint `source` and write the model as `output`; `scratch` keeps what a killed training needs.

    Where several processes train together, each has a part of every batch, and under FSDP of the weights; all return when the
    model is written. `say` hears why a training that was stopped begins again.

    Raises:
        DataError: No pair fits.
        CheckpointError: The model's chat template loses words of a conversation.
        RecipeError: The processes do not divide the batch.
        RunError: Another number of processes came together than the profile asks for, or they divide the model otherwise.
        Interrupted: Asked to stop; a checkpoint has been saved.
    """
    from transformers import set_seed

    from gshf_release.optimization.trainer import run_trainer

    tokenizer = checkpoints.load_tokenizer(source)
    check_reward(tokenizer, template_place(source), today=today)
    set_seed(how.seed)
    device = checkpoints.device_of(profile.device)
    model = _start(source, how, device if profile.world_size == 1 else "cpu")
    choose_padding(tokenizer)
    renderer = ConversationRenderer(tokenizer, today)
    encoded = [(entry.key, *_both(renderer, entry.messages, (entry.better, entry.worse))) for entry in comparisons]
    fitting = [entry for entry in encoded if max(map(len, entry[1:])) <= how.max_tokens]
    if not fitting:
        raise DataError(f"None of {len(encoded)} pairs fits max_tokens {how.max_tokens}.", hint="Raise it.")
    trainer = _trainer(model, tokenizer, fitting, how, profile, scratch, progress)
    launch.require_world_size(profile, trainer.args.world_size)
    if launch.rank() == 0 and (why := lay_out(scratch, layout(profile))):
        say(f"{why}; the training of the reward model begins again, and the checkpoint is kept until it is finished.")
    trainer.accelerator.wait_for_everyone()
    steps = run_trainer(trainer, scratch, profile.training_threads, layout(profile))
    trained = gather(trainer, lambda: _start(source, how, "cpu"))
    if trained is not None:
        checkpoints.save(trained, tokenizer, output)
    trainer.accelerator.wait_for_everyone()
    metrics = [{"loss": entry["loss"], "accuracy": entry["accuracy"]} for entry in steps]
    distribution = running(trainer)._asdict()
    return History(len(fitting), len(encoded) - len(fitting), metrics, renderer.folded, distribution)


def layout(profile: Profile) -> CheckpointLayout:
    """Return how the processes of a profile divide a reward model: FSDP its weights, DeepSpeed's profiles the data alone."""
    return CheckpointLayout("fsdp" if profile.sharding == "fsdp" else "none", profile.world_size)


def _start(source: Path, how: FitSettings, device: str) -> Any:
    """Return the model to train: the body of a checkpoint under a head that the seed draws."""
    model = checkpoints.load_model(source, "fp32", device, head="reward", layers=how.layers, new_head=True)
    return without_dropout(model)


def choose_padding(tokenizer: Any) -> None:
    """Give a tokenizer a padding token other than EOS: the last token that is not padding is scored, and EOS must count."""
    if tokenizer.pad_token in (None, tokenizer.eos_token):
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.bos_token or tokenizer.eos_token


def fits(renderer: ConversationRenderer, messages: Sequence[Message], answers: tuple[str, str], limit: int) -> bool:
    """Return whether both answers, with what they answer, have at most `limit` tokens."""
    return max(map(len, _both(renderer, messages, answers))) <= limit


def _both(
    renderer: ConversationRenderer, messages: Sequence[Message], answers: tuple[str, str]
) -> tuple[list[int], list[int]]:
    better, worse = (renderer.ids([*messages, Message(role="assistant", content=text)]) for text in answers)
    return better, worse


def _trainer(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[tuple[str, list[int], list[int]]],
    how: FitSettings,
    profile: Profile,
    scratch: Path,
    progress: Progress,
) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    from gshf_release.optimization.trainer import Resumable, common_arguments, training_order

    keys = [key for key, _, _ in encoded]
    lengths = [len(better) + len(worse) for _, better, worse in encoded]
    processes, micro_batch = profile.world_size, how.micro_batch_pairs
    stream = training_order(keys, lengths, epochs=how.epochs, batch=how.batch_pairs, seed=how.seed)
    order = fill_last_step(stream, batch=how.batch_pairs, micro_batch=micro_batch, processes=processes)
    arguments = common_arguments(
        scratch=scratch,
        device=checkpoints.device_of(profile.device),
        batch=how.batch_pairs,
        micro_batch=micro_batch,
        processes=processes,
        sharding=layout(profile).sharding,
        examples=len(order),
        learning_rate=how.learning_rate,
        schedule=how.schedule,
        warmup_share=how.warmup_share,
        precision=how.precision,
        checkpoint_every=how.checkpoint_every,
    )
    end = encoded[0][1][-1:]  # both sides of a pair that only fills up: its rewards are equal
    sides = [(end, end) if index is None else encoded[index][1:] for index in order]
    return mean_over_pairs(distributed(RewardTrainer), real=_real, empty_loss=LOG_TWO, metrics=("accuracy", "margin"))(
        model=model,
        args=RewardConfig(**arguments, max_length=None, gradient_checkpointing=how.activation_checkpointing),
        train_dataset=Dataset.from_list([{"chosen_ids": better, "rejected_ids": worse} for better, worse in sides]),
        processing_class=tokenizer,
        callbacks=[Resumable(progress, layout(profile), minutes=profile.checkpoint_minutes)],
    )


def _real(inputs: Mapping[str, Any]) -> Any:
    """Return which pairs of a micro-batch are more than one token on each side, as every conversation is."""
    return (inputs["attention_mask"].sum(dim=1) > 1).chunk(2)[0]
