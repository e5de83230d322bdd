"""An engine on a Ray cluster that is there already."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.recipe.profile import Profile
from gshf_release.run.context import silent
from gshf_release.sampling import TransformersEngine
from gshf_release.sampling.ray_engine import RayEngine
from tests.sampling.conformance import requests

pytestmark = pytest.mark.engines
PROFILE = Profile(inference_precision="fp32", threads=1, device="cpu", replicas=2, sampling_batch=4)


def test_a_cluster_that_is_there_is_used_and_left_as_it_was(
    ending_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        engine = RayEngine(ending_folder, PROFILE)
        assert engine._cpus == 1.0, "two of the three CPUs that this cluster has"
        assert engine.generate(requests(6), silent) == TransformersEngine.open(ending_folder, PROFILE).generate(
            requests(6), silent
        )
        engine.close()
        assert cluster.head_node.dead_processes() == []
        assert capfd.readouterr().err == "", "Ray's own lines stay in its log"
    finally:
        cluster.shutdown()
