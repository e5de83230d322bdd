"""How fast stored judgments are scored, beside the alpaca_eval command on the same judgments. Not a test: run it by hand.

    python -m tests.benchmarks.length_control                  # FOLDER: $GSHF_TEST_DATA or ../shared/data
    python -m tests.benchmarks.length_control FOLDER --models claude-2,phi-2 --repeats 5

Three sides, each a process of its own, taken in turns: `gshf-release score`; the `alpaca_eval` command with every judgment in
its cache, so that it asks no judge; and alpaca_eval's function `get_length_controlled_winrate` alone on the judgments, its
quickest way. Of several models gshf-release scores all in one command, while alpaca_eval takes one at a time. All see the same
files and no network. Besides seconds on the clock the processor's are printed, which a busy machine stretches less.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.benchmarks.inputs import REPOSITORY, data_folder
from tests.benchmarks.sides import report

TOLERANCE = 0.01
"""Points of win rate by which a side may differ."""
REVISION = "0" * 40
FUNCTION = """
import json, sys
from alpaca_eval.metrics import get_length_controlled_winrate
rows = json.load(open(sys.argv[1]))
print(get_length_controlled_winrate(rows, save_weights_dir=None)["length_controlled_winrate"])
"""


def fake_hub(data: Path, folder: Path) -> None:
    """Put df_gamed.csv where huggingface_hub looks for what it has downloaded."""
    cache = folder / "home" / "hub" / "datasets--tatsu-lab--alpaca_eval"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(REVISION)
    (cache / "snapshots" / REVISION).mkdir(parents=True)
    shutil.copyfile(data / "df_gamed.csv", cache / "snapshots" / REVISION / "df_gamed.csv")


def write_files(data: Path, model: str, folder: Path) -> None:
    """Write the judgments, both models' answers and the command's cache of judgments."""
    with gzip.open(data / "annotations" / f"{model}.json.gz", "rt", encoding="utf-8") as stream:
        rows = json.load(stream)
    written = {"annotations": rows, "judged": rows}
    for name, number in (("reference", 1), ("model", 2)):
        columns = {"output": f"output_{number}", "generator": f"generator_{number}"}
        written[name] = [
            {"instruction": row["instruction"]} | {key: row[column] for key, column in columns.items()} for row in rows
        ]
    folder.mkdir()
    (folder / "results").mkdir()
    for name, content in written.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def library_command(folder: Path) -> list[str]:
    command = [sys.executable, "-m", "alpaca_eval.main", "evaluate", "--name", "timed"]
    command += ["--model_outputs", str(folder / "model.json"), "--reference_outputs", str(folder / "reference.json")]
    command += ["--annotators_config", "weighted_alpaca_eval_gpt4_turbo", "--caching_path", str(folder / "judged.json")]
    command += ["--precomputed_leaderboard", "None", "--is_cache_leaderboard", "False"]
    return [*command, "--metric_kwargs", "{'save_weights_dir': None}", "--output_path", str(folder / "results")]


def commands(data: Path, folders: list[Path]) -> dict[str, list[list[str]]]:
    """Return what each side runs, one after the other."""
    ours = [sys.executable, "-m", "gshf_release", "score", "alpaca_eval_2"]
    ours += [str(folder / "annotations.json") for folder in folders]
    ours += ["--data", str(data), "--allow-unverified-data", "--as-published", "--json"]
    function = [sys.executable, "-c", FUNCTION]
    return {
        "gshf-release score": [ours],
        "alpaca_eval command": [library_command(folder) for folder in folders],
        "alpaca_eval function": [[*function, str(folder / "annotations.json")] for folder in folders],
    }


def measured(command: list[str], folder: Path) -> tuple[float, float, str]:
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


def answers(side: str, printed: list[str], folders: list[Path]) -> list[float]:
    """Return the length-controlled win rates that a side came to."""
    if side == "gshf-release score":
        return [float(row["length_controlled_winrate"]) for row in json.loads(printed[0])]
    if side == "alpaca_eval function":
        return [float(text.rsplit(maxsplit=1)[-1]) for text in printed]
    found = []
    for folder in folders:
        text = next(folder.rglob("leaderboard.csv")).read_text(encoding="utf-8")
        (row,) = csv.DictReader(text.splitlines())
        found.append(float(row["length_controlled_winrate"]))
    return found


@click.command()
@click.argument("data", type=click.Path(path_type=Path), default=lambda: data_folder() / "alpaca_eval")
@click.option("--models", default="OpenHermes-2.5-Mistral-7B", show_default=True, help="Separated by commas.")
@click.option("--repeats", default=3, show_default=True)
def main(data: Path, models: str, repeats: int) -> None:
    """Measure and print; DATA has annotations/ and df_gamed.csv."""
    data, named = data.resolve(), models.split(",")
    clock: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        fake_hub(data, home)
        folders = [home / model for model in named]
        for model, folder in zip(named, folders, strict=True):
            write_files(data, model, folder)
        for _ in range(repeats):
            for side, each in commands(data, folders).items():
                runs = [measured(command, home) for command in each]
                rates[side] = answers(side, [printed for _, _, printed in runs], folders)
                clock.setdefault(side, []).append(sum(seconds for seconds, _, _ in runs))
                processor.setdefault(side, []).append(sum(used for _, used, _ in runs))
    require_agreement(rates)
    for side, values in processor.items():
        click.echo(f"{side}: {min(values):.2f} to {max(values):.2f} s of processor time; LC {rates[side]}")
    report("length_control", clock, models=named, length_controlled=rates)


def require_agreement(rates: dict[str, list[float]]) -> None:
    """Fail if the sides come to other win rates: then they did not do the same work."""
    ours, *others = rates.values()
    if any(abs(mine - theirs) > TOLERANCE for other in others for mine, theirs in zip(ours, other, strict=True)):
        raise click.ClickException(f"The sides disagree: {rates}")


if __name__ == "__main__":
    main()
