"""How fast stored judgments are scored, beside the alpaca_eval command on the same judgments. Not a test: run it by hand.

    python -m tests.benchmarks.score_speed                     # FOLDER: $GSHF_TEST_DATA or ../shared/data
    python -m tests.benchmarks.score_speed FOLDER --model claude-2 --runs 5

Three sides, each a process of its own, taken in turns: `gshf-release score`; the `alpaca_eval` command with every judgment in its
cache, so that it asks no judge; and alpaca_eval's function `get_length_controlled_winrate` alone on the file of judgments, its
quickest way. All see the same files and no network. Besides seconds on the clock the processor's are printed, which a
busy machine does not stretch as much.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import REPOSITORY

REVISION = "0" * 40
FUNCTION = """
import json, sys
from alpaca_eval.metrics import get_length_controlled_winrate
rows = json.load(open(sys.argv[1]))
print(get_length_controlled_winrate(rows, save_weights_dir=None)["length_controlled_winrate"])
"""


def prepare(data: Path, model: str, folder: Path) -> dict[str, list[str]]:
    """Write what the sides read into `folder` and return their commands."""
    with gzip.open(data / "annotations" / f"{model}.json.gz", "rt", encoding="utf-8") as stream:
        rows = json.load(stream)
    cache = folder / "home" / "hub" / "datasets--tatsu-lab--alpaca_eval"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(REVISION)
    (cache / "snapshots" / REVISION).mkdir(parents=True)
    shutil.copyfile(data / "df_gamed.csv", cache / "snapshots" / REVISION / "df_gamed.csv")
    written = {"annotations": rows, "judged": [row | {"dataset": None} for row in rows]}
    for name, number in (("reference", 1), ("model", 2)):
        keys = {"output": f"output_{number}", "generator": f"generator_{number}"}
        written[name] = [
            {"instruction": row["instruction"], "dataset": row.get("dataset")}
            | {key: row[column] for key, column in keys.items()}
            for row in rows
        ]
    for name, content in written.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    library = [sys.executable, "-m", "alpaca_eval.main", "evaluate", "--name", f"{model}-timed"]
    library += ["--model_outputs", str(folder / "model.json"), "--reference_outputs", str(folder / "reference.json")]
    library += ["--annotators_config", "weighted_alpaca_eval_gpt4_turbo", "--caching_path", str(folder / "judged.json")]
    library += ["--precomputed_leaderboard", "None", "--is_cache_leaderboard", "False"]
    library += ["--metric_kwargs", "{'save_weights_dir': None}", "--output_path", str(folder / "results")]
    (folder / "results").mkdir()
    ours = [sys.executable, "-m", "gshf_release", "score", "alpaca_eval_2", str(folder / "annotations.json"), "--json"]
    ours += ["--data", str(data), "--allow-unverified-data", "--as-published"]
    return {
        "gshf-release score": ours,
        "alpaca_eval command": library,
        "alpaca_eval function": [sys.executable, "-c", FUNCTION, str(folder / "annotations.json")],
    }


def timed(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Return seconds on the clock, seconds of processor time, and what was printed."""
    environment = os.environ | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"OPENAI_API_KEY": "none", "PYTHONPATH": str(REPOSITORY)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{ran.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ran.stdout


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


def answer(name: str, printed: str, folder: Path) -> float:
    """Return the length-controlled win rate that a side came to."""
    if name == "gshf-release score":
        return float(json.loads(printed)[0]["length_controlled_winrate"])
    if name == "alpaca_eval function":
        return float(printed.split()[-1])
    header, row = (line.split(",") for line in next(folder.rglob("leaderboard.csv")).read_text().splitlines()[:2])
    return float(row[header.index("length_controlled_winrate")])


def main() -> None:
    """Measure and print."""
    default = Path(os.environ.get("GSHF_TEST_DATA") or REPOSITORY.parent / "shared" / "data") / "alpaca_eval"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=default, help="folder with annotations/ and df_gamed.csv")
    parser.add_argument("--model", default="OpenHermes-2.5-Mistral-7B")
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    data = chosen.data.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = prepare(data, chosen.model, folder)
        clock: dict[str, list[float]] = {side: [] for side in commands}
        processor: dict[str, list[float]] = {side: [] for side in commands}
        answers = {}
        for number in range(chosen.runs + 1):  # the first round, which fills the disk's cache, is not counted
            for side, command in commands.items():
                seconds, used, printed = timed(command, folder)
                answers[side] = answer(side, printed, folder)
                if number:
                    clock[side].append(seconds)
                    processor[side].append(used)
    print(f"{chosen.model}, {chosen.runs} runs each: median (range); load {os.getloadavg()[0]:.1f}")
    ours = next(iter(commands))
    for side in commands:
        ratio = statistics.median(clock[side]) / statistics.median(clock[ours])
        work = statistics.median(processor[side]) / statistics.median(processor[ours])
        print(
            f"{side:21} clock {shown(clock[side])}, {ratio:.1f}x; processor {shown(processor[side])}, {work:.1f}x;",
            end=" ",
        )
        print(f"LC {answers[side]:.6f}")


if __name__ == "__main__":
    main()
