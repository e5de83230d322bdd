"""Sample with two copies of an engine on the Ray cluster of `RAY_ADDRESS`, and write the responses to a file.

python -m tests.engines.sample_on_cluster CHECKPOINT FILE
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from gshf_release.recipe.profile import Profile
from gshf_release.run.context import silent
from gshf_release.sampling.ray_engine import RayEngine
from tests.sampling.conformance import requests

PROFILE = Profile(inference_precision="fp32", threads=1, device="cpu", replicas=2, sampling_batch=4)
REQUESTS = requests(400, limit=100)

if __name__ == "__main__":
    engine = RayEngine(Path(sys.argv[1]), PROFILE)
    found = engine.generate(REQUESTS, silent)
    engine.close()
    Path(sys.argv[2]).write_text(json.dumps([asdict(completion) for completion in found]), encoding="utf-8")
