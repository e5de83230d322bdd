"""TRL's reference policy, left out: its log-probabilities are computed before, by a stage of its own.

Told that they are precomputed, `DPOTrainer` (1.16) still loads a second FP32 model on every rank under FSDP, and in every mode
hashes all weights in one thread (35 seconds for 7B) to name a cache file that nobody writes here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.metadata import version

from gshf_release.errors import RunError


@contextlib.contextmanager
def without_reference_model() -> Iterator[None]:
    """Let `DPOTrainer` be built, from a model that is given, without loading or hashing another.

    Raises:
        RunError: This version of TRL loads or hashes by other functions.
    """
    from trl.trainer import dpo_trainer

    instead = {"create_model_from_path": lambda *_, **__: None, "hash_module": lambda _: "not hashed"}
    if missing := [name for name in instead if not hasattr(dpo_trainer, name)]:
        raise RunError(
            f"TRL {version('trl')} loads its reference policy in a way that is not known here: no {', '.join(missing)}.",
            hint="Install the version of constraints.txt.",
        )
    theirs = {name: getattr(dpo_trainer, name) for name in instead}
    try:
        for name, function in instead.items():
            setattr(dpo_trainer, name, function)
        yield
    finally:
        for name, function in theirs.items():
            setattr(dpo_trainer, name, function)
