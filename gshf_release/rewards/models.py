"""Kinds of scorers, and how one comes into a run and is opened there or anywhere else."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gshf_release.errors import EngineError
from gshf_release.models import checkpoints
from gshf_release.recipe import ScoreSource
from gshf_release.rewards import Inference, PairwiseModel, RewardModel
from gshf_release.rewards.ensemble import EnsembleReward
from gshf_release.rewards.instruction_checks import InstructionChecks, adopt_checks, load_rules
from gshf_release.rewards.pairwise import GenerativePreference
from gshf_release.rewards.python_callable import PythonReward
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from gshf_release.rewards.settings import kind_of, kind_of_source

KINDS: dict[str, type[SequenceClassificationReward | PythonReward | GenerativePreference | InstructionChecks]] = {
    "checks": InstructionChecks,
    "sequence-classification": SequenceClassificationReward,
    "python": PythonReward,
    "pairwise": GenerativePreference,
}
CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")


def copy_models(chosen: ScoreSource, folder: Path) -> None:
    """Bring the recipe's scorer into a run as `folder`, having opened it once; an ensemble has one subfolder per member.

    Raises:
        CheckpointError: A model is missing or broken.
        EngineError: It is no scorer of its kind.
    """
    if chosen.checks is not None:
        adopt_checks(chosen, folder)
    elif chosen.models:
        for number, member in enumerate(chosen.models):
            _adopt(member.model, member.revision, kind_of(member.model), folder / f"member-{number}")
    else:
        _adopt(str(chosen.model), chosen.revision, kind_of(chosen.model, chosen.kind), folder)


def _adopt(model: str, revision: str | None, kind: str, folder: Path) -> None:
    if kind == "python":
        folder.parent.mkdir(parents=True, exist_ok=True)
        PythonReward.adopt(model, folder)
        return
    source = checkpoints.locate(model, revision=revision)
    KINDS[kind].open(source, Inference("bf16", batch=1))
    copy_checkpoint(source, folder)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy the weights, configuration and tokenizer of a checkpoint folder, and nothing else."""
    target.mkdir(parents=True, exist_ok=True)
    for pattern in CHECKPOINT_FILES:
        for path in sorted(source.glob(pattern)):
            shutil.copyfile(path, target / path.name)


def open_adopted(chosen: ScoreSource, folder: Path, how: Inference) -> RewardModel | PairwiseModel:
    """Return the scorer that `adopt` brought into a run, or that the run trained there."""
    if chosen.models:
        kinds = [kind_of(member.model) for member in chosen.models]
        return EnsembleReward(
            [partial(_open_scoring, kind, folder / f"member-{number}", how) for number, kind in enumerate(kinds)]
        )
    return KINDS[kind_of_source(chosen)].open(folder, how)


def open_source(chosen: ScoreSource, how: Inference) -> RewardModel | PairwiseModel:
    """Return the scorer that a recipe describes, from where it lies now, outside a run.

    Raises:
        CheckpointError: A model is not here or broken.
        EngineError: It is no scorer of its kind.
    """
    if chosen.checks is not None:
        return InstructionChecks(load_rules(chosen.checks), all_or_nothing=chosen.all_or_nothing)
    if chosen.models:
        return EnsembleReward([partial(_named_scoring, member.model, how, member.revision) for member in chosen.models])
    return _open_one(str(chosen.model), chosen.kind, how, chosen.revision)


def open_named(models: Sequence[str], kind: str, how: Inference) -> RewardModel | PairwiseModel:
    """Return the scorer of one name, or the ensemble of several: folders, Hub ids or `python:package.module:function`.

    Of kind `checks` the name is `instructions` or a list of rules, `python:package.module:NAME`.

    Raises:
        CheckpointError: A model is not here or broken.
        EngineError: It is no scorer of its kind; or an ensemble of pairwise models.
    """
    if kind == "checks":
        if len(models) > 1:
            raise EngineError("Rules make no ensemble.", hint="Name one list of rules.")
        return InstructionChecks(load_rules(models[0]))
    if len(models) == 1:
        return _open_one(models[0], kind, how)
    if kind == "pairwise":
        raise EngineError("Pairwise models give no scores that an ensemble could average.", hint="Name one model.")
    return EnsembleReward([partial(_named_scoring, model, how) for model in models])


def _open_one(model: str, kind: str, how: Inference, revision: str | None = None) -> RewardModel | PairwiseModel:
    if kind_of(model) == "python":
        return PythonReward(model)
    return KINDS[kind].open(checkpoints.locate(model, revision=revision), how)


def _named_scoring(model: str, how: Inference, revision: str | None = None) -> RewardModel:
    return scoring(_open_one(model, "sequence-classification", how, revision))


def _open_scoring(kind: str, folder: Path, how: Inference) -> RewardModel:
    return scoring(KINDS[kind].open(folder, how))


def scoring(model: RewardModel | PairwiseModel) -> RewardModel:
    """Return the model if it scores single conversations.

    Raises:
        EngineError: It is a pairwise model.
    """
    if isinstance(model, PairwiseModel):
        raise EngineError(
            "A pairwise model compares two responses and has no score for one alone.",
            hint="Compare it with judgments: gshf-release reward agreement",
        )
    return model
