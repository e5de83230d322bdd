"""`gshf-release prompts` at the published size, with a synthetic writer in the model's place. Not a test: run it by hand.

    python -m tests.benchmarks.prompts_at_scale                       # 1,000, 8,000 and 60,000 prompts
    python -m tests.benchmarks.prompts_at_scale --counts 1000,4000 --data FOLDER_WITH_BENCHMARK_FILES

A chat-completions server on this machine answers every request at once with a list of synthetic prompts (those of
`tests.benchmarks.dedupe`). Everything else is the command as users run it: HTTP, parsing, filters, deduplication,
decontamination if the benchmark files are at hand, the record that it resumes from, export. Each size is its own process. The
time of a real model is not in it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.dedupe import expansion, seeds
from tests.servers.chat import ChatServer

ASKED = 12
MEASURE = """
import json, resource, sys
from gshf_release.cli import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"gigabytes": used.ru_maxrss / 1e6, "processor": used.ru_utime + used.ru_stime}), file=sys.stderr)
"""


def answers(mean_words: int) -> Any:
    """Return the synthetic writer: a list that follows from the request's seed."""
    known = seeds()

    def answer(body: dict[str, Any]) -> str:
        made = expansion(known, ASKED, mean_words, seed=body["seed"])
        return "\n".join(f"{number}. {text}" for number, text in enumerate(made, 9))

    return answer


def measure(count: int, address: str, data: Path | None, folder: Path) -> dict[str, float]:
    """Return seconds, memory and yield of the command for `count` prompts."""
    arguments = ["prompts", "quickstart", "--server", address, "--run", str(folder / str(count)), "--json"]
    settings = {"target": count, "writer.model": "served:synthetic", "asked": ASKED, "requests_per_round": 64}
    if data is None:
        settings["decontaminate"] = "[]"
    for key, value in settings.items():
        arguments += ["--set", f"prompts.augmentation.{key}={value}"]
    arguments += ["--data", str(data)] if data else []
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(done.stderr)
    used = json.loads(done.stderr.strip().splitlines()[-1])
    cells = {cell["metric"]: cell["value"] for cell in json.loads(done.stdout)["cells"]}
    return {"seconds": seconds, "yield": cells["yield"], "entries": cells["entries"], **used}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="1000,8000,60000", help="sizes of the set, separated by commas")
    parser.add_argument("--words", type=int, default=18, help="mean words a prompt")
    parser.add_argument("--data", type=Path, help="folder of the benchmark files, to decontaminate against")
    chosen = parser.parse_args()
    counts = [int(part) for part in chosen.counts.split(",")]
    found = {}
    os.environ.setdefault("OPENAI_API_KEY", "unused")
    with tempfile.TemporaryDirectory() as folder, ChatServer(answers(chosen.words), key=None) as server:
        for count in counts:
            found[count] = measure(count, server.address, chosen.data, Path(folder))
            numbers = ", ".join(f"{name} {value:,.1f}" for name, value in found[count].items())
            print(f"{count:,} synthetic prompts: {numbers}; load {os.getloadavg()[0]:.1f}", flush=True)
            server.received.clear()
    for small, large in pairwise(counts):
        growth = math.log(found[large]["seconds"] / found[small]["seconds"]) / math.log(large / small)
        print(f"exponent of growth from {small:,} to {large:,}: {growth:.2f}")


if __name__ == "__main__":
    main()
