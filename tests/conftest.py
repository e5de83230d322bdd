"""Fixtures that several rooms share: the tiny checkpoints, one thread, quiet libraries."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gshf_release.profile import Profile
from gshf_release.recipe import Recipe, parse
from tests import tiny

REPOSITORY = Path(__file__).resolve().parent.parent
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Bit-equality is promised for one thread count; the libraries' own reports stay off the terminal."""
    import torch

    from gshf_release.checkpoints import quiet_libraries

    torch.set_num_threads(1)
    quiet_libraries()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Return a folder with the tiny policy (`tiny`), both scorers and both prompt files."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny.recipe(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tiny_folder: Path) -> Recipe:
    """Return the tiny recipe, checked."""
    return parse(Recipe, tiny.recipe(tiny_folder), "tiny")


@pytest.fixture(scope="session")
def exact() -> Profile:
    """Return a profile whose inference is FP32, so that results can be compared bit by bit."""
    return Profile(inference_precision="fp32", threads=1)


@pytest.fixture(scope="session")
def policy(tiny_folder: Path) -> Any:
    """Return the tiny policy in FP32."""
    from gshf_release.checkpoints import load_model

    return load_model(tiny_folder / "tiny", "fp32")


@pytest.fixture(scope="session")
def tokenizer(tiny_folder: Path) -> Any:
    """Return the tiny tokenizer."""
    from gshf_release.checkpoints import load_tokenizer

    return load_tokenizer(tiny_folder / "tiny")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of published texts that tests read: `GSHF_TEST_DATA`, else `../shared/data`."""
    return Path(os.environ.get("GSHF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
