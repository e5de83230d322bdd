"""How copies of an engine share a cluster; that they sample is tried in tests/engines."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.errors import EngineError, RecipeError
from gshf_release.recipe import parse
from gshf_release.recipe.profile import Profile
from gshf_release.sampling.cpu_cores import divided
from gshf_release.sampling.engines import open_engine
from gshf_release.sampling.ray_engine import cpus_each, in_pieces

PROFILE = Profile(inference_precision="fp32", threads=1, device="cpu", replicas=2, sampling_batch=4)


@given(total=st.integers(2, 500), replicas=st.integers(1, 200))
def test_a_cpu_is_always_left_for_what_moves_the_data(total: int, replicas: int) -> None:
    each = cpus_each(total, replicas)
    assert 0 < each <= 1
    assert replicas * each <= total - 1 + 1e-9


def test_a_cluster_of_one_cpu_is_refused() -> None:
    with pytest.raises(EngineError, match="has 1 CPU; one is needed beside the replicas"):
        cpus_each(1, 2)


@given(count=st.integers(0, 60), batch=st.integers(1, 9), replicas=st.integers(1, 5))
def test_pieces_hold_every_request_once_and_leave_no_replica_idle(count: int, batch: int, replicas: int) -> None:
    pieces = in_pieces(count, batch, replicas)
    assert [position for piece in pieces for position in piece] == list(range(count))
    assert all(1 <= len(piece) <= batch for piece in pieces)
    assert len(pieces) >= min(count, replicas) / 2


@given(cores=st.integers(1, 64), engines=st.integers(1, 16))
def test_engines_of_one_machine_divide_its_cores(cores: int, engines: int) -> None:
    parts = divided(range(cores), engines)
    assert len({len(part) for part in parts}) == 1
    assert len(parts) == engines
    used = [core for part in parts for core in part]
    assert len(set(used)) == len(used) or cores < engines
    assert cores - len(set(used)) < engines, "no more are left than an even division leaves"


def test_a_server_is_not_replicated() -> None:
    with pytest.raises(RecipeError, match="a server is asked by one process"):
        parse(Profile, {"engine": "openai", "replicas": 2}, "it")


def test_without_ray_the_message_says_how_to_get_it(ending_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    with pytest.raises(EngineError, match="Ray is not installed"):
        open_engine(ending_folder, PROFILE)
