"""Without a private name of a library that is needed, an error says which one it was and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest

from gshf_release.errors import RunError
from gshf_release.hub import client
from gshf_release.models.packing import attention_of
from gshf_release.optimization.fsdp import distributed
from gshf_release.optimization.trl_internals import token_dpo_trainer, training_metrics, without_reference_model


def build_without_reference() -> None:
    with without_reference_model():
        pass


def divide() -> None:
    from transformers import Trainer

    distributed(Trainer)


@pytest.mark.parametrize(
    ("library", "name", "use", "said"),
    [
        (
            "trl",
            "trl.trainer.dpo_trainer.create_model_from_path",
            build_without_reference,
            "a second copy of the reference",
        ),
        ("trl", "trl.trainer.dpo_trainer.hash_module", build_without_reference, "a second copy of the reference"),
        ("trl", "trl.DPOTrainer._prepare_dataset", token_dpo_trainer, "would be computed again"),
        ("trl", "trl.DPOTrainer._precompute_ref_logps", token_dpo_trainer, "would be computed again"),
        ("transformers", "transformers.Trainer._build_accelerator_args", divide, "FSDP would round to BF16"),
        (
            "huggingface_hub",
            "huggingface_hub.utils._http.default_client_factory",
            client._http_client,
            "a server that hangs",
        ),
    ],
)
def test_a_private_name_that_is_gone_is_one_line(
    monkeypatch: pytest.MonkeyPatch, library: str, name: str, use: Callable[[], object], said: str
) -> None:
    use()
    monkeypatch.delattr(name)
    with pytest.raises(RunError, match=rf"^{library} {version(library)} has no {name.rpartition('.')[2]}, .*{said}"):
        use()


@pytest.mark.parametrize(
    ("read", "owner", "name"),
    [
        (training_metrics, object(), "_metrics"),
        (attention_of, SimpleNamespace(config=object()), "_attn_implementation"),
    ],
)
def test_a_private_attribute_that_is_gone_is_one_line(read: Callable[[Any], object], owner: Any, name: str) -> None:
    with pytest.raises(RunError, match=f" has no {name}, without which .* Install the version of constraints"):
        read(owner)
