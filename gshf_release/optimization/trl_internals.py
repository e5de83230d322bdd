"""Gather what TRL's trainers keep private and this package replaces or reads.

The reference policy is left out, for its log-probabilities are computed before, by a stage of its own. Told that they are
precomputed, `DPOTrainer` (1.16) still loads a second FP32 model on every rank under FSDP, and in every mode hashes all weights
in one thread (35 seconds for 7B) to name a cache file that nobody writes here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gshf_release.models.internals import require_internals


@contextlib.contextmanager
def without_reference_model() -> Iterator[None]:
    """Let `DPOTrainer` be built, from a model that is given, without loading or hashing another.

    Raises:
        RunError: This version of TRL loads or hashes by other functions.
    """
    from trl.trainer import dpo_trainer

    instead = {"create_model_from_path": lambda *_, **__: None, "hash_module": lambda _: "not hashed"}
    require_internals("trl", dpo_trainer, *instead, consequence="a second copy of the reference policy would be loaded")
    theirs = {name: getattr(dpo_trainer, name) for name in instead}
    try:
        for name, function in instead.items():
            setattr(dpo_trainer, name, function)
        yield
    finally:
        for name, function in theirs.items():
            setattr(dpo_trainer, name, function)


def token_dpo_trainer() -> Any:
    """Return a DPOTrainer that takes token ids and reference log-probabilities as they are.

    Its rows hold prompt_ids, chosen_ids, rejected_ids, ref_chosen_logps and ref_rejected_logps.

    Raises:
        RunError: This version of TRL prepares rows by other methods.
    """
    from trl import DPOTrainer

    consequence = "token ids and reference log-probabilities would be computed again"
    require_internals("trl", DPOTrainer, "_prepare_dataset", "_precompute_ref_logps", consequence=consequence)

    class TokenDPOTrainer(DPOTrainer):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            with without_reference_model():
                super().__init__(*args, **options)

        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any) -> Any:
            return dataset

    return TokenDPOTrainer


def training_metrics(trainer: Any) -> dict[str, list[float]]:
    """Return the metrics that a trainer has gathered since it last logged, a value a micro-batch.

    Raises:
        RunError: This version of TRL keeps them elsewhere.
    """
    require_internals("trl", trainer, "_metrics", consequence="the metrics of a step cannot be averaged over its pairs")
    found: dict[str, list[float]] = trainer._metrics["train"]
    return found
