"""Holds a vLLM engine for a test in another environment: `python serve_engine.py CHECKPOINT SETTINGS`.

One JSON line in, one out: requests, then completions or a known error.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any


def main(checkpoint: str, settings: str) -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what vLLM prints is no answer
    from gshf_release.errors import GshfError
    from gshf_release.recipe.profile import Vllm
    from gshf_release.sampling.protocol import Decoding, Request
    from gshf_release.sampling.vllm_engine import VllmEngine

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    given = json.loads(settings)
    try:
        engine = VllmEngine(
            Path(checkpoint), dtype=given["dtype"], batch=16, cores=given["cores"], settings=Vllm(**given["vllm"])
        )
    except GshfError as error:
        answer({"error": str(error)})
        return
    answer({"stops": engine.stops})
    for line in sys.stdin:
        requests = [
            Request(entry["prompt_ids"], Decoding(**entry["decoding"]), entry["seed"]) for entry in json.loads(line)
        ]
        heard: list[tuple[int, int]] = []
        try:
            completions = engine.generate(requests, lambda done, total, unit: heard.append((done, total)))  # noqa: B023
        except GshfError as error:
            answer({"error": str(error)})
        else:
            answer({"completions": [asdict(completion) for completion in completions], "progress": heard})
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
