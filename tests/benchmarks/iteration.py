"""One whole iteration beside the three stages as scripts of plain library calls. Not a test: run it by hand, on a CPU or a GPU.

    python -m tests.benchmarks.iteration
    python -m tests.benchmarks.iteration --model FOLDER --reward FOLDER --prompts 1024 --max-new-tokens 2048

A profile given must ask for the device and FP32, for that is what the scripts compute in.

An iteration is: sample 4 responses to each prompt, score them, take best and worst, reference log-probabilities, DPO steps, a
checkpoint. Both sides have the same prompts, models, limits, arithmetic and batch, and sample on their own, so their
responses differ in length; tokens are printed. This package drops ties and equal responses, the
scripts train on them. The sides:

- this package: the stages of iteration 1 of a run whose base and prompts are prepared;
- scripts: `generate` in static batches of 8 prompts x 4; transformers' text-classification pipeline, one response at a time;
  TRL's DPOTrainer as it comes (reference at every step, activation checkpointing), each script a process of its own.

On a CPU seconds are the processor's of all processes over the threads, loading and imports included; on a GPU the clock's. MFU
counts, for each parameter of the policy, two operations a token of prompts (once a prompt) and responses, and eight a token of
pairs, their reference log-probabilities and their training, over the rate of large matrix products measured here, which is the
limit too.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml

from tests.benchmarks.sampling import REPOSITORY, hardware, prepared
from tests.benchmarks.scoring import checkpoint_of
from tests.benchmarks.sides import in_turns, report, timed

OURS, SCRIPTS = "this package", "three scripts"
GOALS = {SCRIPTS: 2.0}
STATIC_PROMPTS = 8
BETA, LEARNING_RATE = 0.1, 1e-5


def sample(folder: Path, settings: dict[str, Any]) -> None:
    """Write prompts and their responses as text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(settings["base"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(settings["base"], dtype=torch.float32).to(settings["device"])
    rows: list[dict[str, Any]] = []
    for first in range(0, len(settings["texts"]), STATIC_PROMPTS):
        chats = [[{"role": "user", "content": text}] for text in settings["texts"][first : first + STATIC_PROMPTS]]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
        ).to(settings["device"])
        output = model.generate(
            **batch, do_sample=True, num_return_sequences=4, max_new_tokens=settings["max_new_tokens"], top_k=0
        )
        answers = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        rows += [{"chat": chat, "answers": answers[4 * at : 4 * at + 4]} for at, chat in enumerate(chats)]
    (folder / "samples.json").write_text(json.dumps(rows), encoding="utf-8")


def score(folder: Path, settings: dict[str, Any]) -> None:
    """Write pairs of the best and the worst response."""
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(settings["reward"])
    scorer = pipeline("text-classification", model=settings["reward"], tokenizer=tokenizer, device=settings["device"])
    pairs = []
    for row in json.loads((folder / "samples.json").read_text(encoding="utf-8")):
        rewards = []
        for answer in row["answers"]:
            given = {"text": row["chat"][-1]["content"], "text_pair": answer}
            rewards.append(scorer(given, function_to_apply="none", truncation=True)["score"])
        best, worst = (row["answers"][rewards.index(choose(rewards))] for choose in (max, min))
        pairs.append({"prompt": row["chat"], "chosen": _turn(best), "rejected": _turn(worst)})
    (folder / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def optimise(folder: Path, settings: dict[str, Any]) -> None:
    """Train on the pairs and save the policy."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    pairs = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    configuration = DPOConfig(
        output_dir=str(folder / "policy"),
        per_device_train_batch_size=settings["micro_batch"],
        gradient_accumulation_steps=settings["batch"] // settings["micro_batch"],
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        beta=BETA,
        bf16=False,
        max_length=None,
        report_to="none",
        use_cpu=settings["device"] == "cpu",
    )
    model = AutoModelForCausalLM.from_pretrained(settings["base"], dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(settings["base"])
    trainer = DPOTrainer(
        model=model, args=configuration, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer
    )
    trainer.train()
    trainer.save_model()


def iterate(folder: Path, settings: dict[str, Any]) -> None:
    """Bring a run up to iteration 1, or if it is there, to the end of it."""
    from gshf_release import pipeline, profile, recipe
    from gshf_release.run.directory import RunDirectory
    from gshf_release.run.execution import execute

    chosen, where = recipe.load(settings["recipe"]), profile.load(settings["profile"])
    stages = pipeline.build(chosen).stages
    names = [stage.name for stage in stages]
    if folder.exists():
        run, wanted = RunDirectory.open(folder), [n for n in names if n.startswith("iteration-1/") and "valid" not in n]
        wanted = wanted[: wanted.index("iteration-1/policy") + 1]
    else:
        run, wanted = RunDirectory.create(folder, chosen, where), names[: names.index("iteration-1/samples")]
    execute(stages, run, chosen, where, goal=[stage for stage in stages if stage.name in wanted])


PARTS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "sample": sample,
    "score": score,
    "optimise": optimise,
    "iterate": iterate,
}


def call(part: str, folder: Path, settings: Path, threads: int) -> None:
    """Do a part in a process of its own."""
    variables = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.benchmarks.iteration", "--part", part, str(folder), str(settings)]
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{part}: {done.stderr[-2000:]}")


def processed_by_children(work: Callable[[], Any]) -> float:
    """Return the seconds of processor time of the processes that a call starts and waits for."""
    before = os.times()
    work()
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def write_recipe(folder: Path, base: Path, reward: Path, chosen: dict[str, Any]) -> Path:
    """Write the recipe of one iteration: the quickstart's, with other models and sizes and no wish for short answers."""
    from gshf_release import assets

    content = yaml.safe_load(assets.find("quickstart", "training/recipes", ".yaml").read_text(encoding="utf-8"))
    content["base"], content["reward"] = {"model": str(base)}, {"model": str(reward)}
    content["prompts"] = {"source": "seed", "roles": {"per_iteration": chosen["prompts"], "validation": 1, "test": 1}}
    content["sampling"] = {"n": 4, "temperatures": [1.0], "max_new_tokens": chosen["max_new_tokens"]}
    content["loop"] = {"iterations": 1}
    content["training"] |= {"beta": BETA, "learning_rate": LEARNING_RATE, "batch_pairs": chosen["batch"]}
    content["evaluation"] = {"prompts": "quickstart", "second_scorer": {"model": str(reward)}}
    path = folder / "iteration.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def write_profile(folder: Path, chosen: dict[str, Any]) -> Path:
    """Write the profile: a given one, or one on the CPU with the threads and batches asked for."""
    if chosen["profile"]:
        return Path(chosen["profile"])
    path = folder / "profile.yaml"
    threads = chosen["threads"]
    content = {"name": "one", "device": chosen["device"], "threads": threads, "training_threads": threads}
    content |= {"concurrent_batches": 1, "inference_precision": "fp32", "sampling_batch": 40, "scoring_batch": 16}
    path.write_text(yaml.safe_dump(content | {"micro_batch_pairs": chosen["micro_batch"]}), encoding="utf-8")
    return path


@click.command()
@click.option("--model", help="A checkpoint folder; default: the quickstart's model.")
@click.option("--reward", default="encoder", show_default=True, help="encoder, causal, or a folder.")
@click.option("--profile", help="Of this package's side; default: --device and --threads.")
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--prompts", default=16, show_default=True)
@click.option("--max-new-tokens", default=384, show_default=True)
@click.option("--batch", default=8, show_default=True, help="Pairs of an optimiser step.")
@click.option("--micro-batch", default=4, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--part", nargs=3, hidden=True)
def main(**chosen: Any) -> None:
    """Measure and print."""
    from gshf_release.checkpoints import device_of, quiet_libraries

    quiet_libraries()
    chosen["device"] = device_of(chosen["device"])
    if chosen["part"]:
        part, folder, file = chosen["part"]
        PARTS[part](Path(folder), json.loads(Path(file).read_text(encoding="utf-8")))
        return
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), chosen)


def measure(folder: Path, chosen: dict[str, Any]) -> None:
    """Measure both sides, and print."""
    import torch

    from gshf_release.checkpoints import load_model, load_tokenizer
    from gshf_release.records import Pair, Prompt, Sample

    base, reward = prepared(chosen["model"], folder / "model"), checkpoint_of(chosen["reward"], folder)
    settings = {key: chosen[key] for key in ("device", "max_new_tokens", "batch", "micro_batch")}
    settings |= {"base": str(base), "reward": str(reward), "profile": str(write_profile(folder, chosen))}
    settings |= {"recipe": str(write_recipe(folder, base, reward, chosen))}
    path, fresh, threads = folder / "settings.json", folder / "fresh", chosen["threads"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    call("iterate", fresh, path, threads)
    prompts = Prompt.read(fresh / "iteration-1" / "prompts" / "prompts.parquet")
    texts = [prompt.messages[-1]["content"] for prompt in prompts]
    path.write_text(json.dumps(settings | {"texts": texts}), encoding="utf-8")
    tokenizer = load_tokenizer(base)
    tokens: dict[str, list[float]] = {OURS: [], SCRIPTS: []}
    operations: dict[str, list[float]] = {OURS: [], SCRIPTS: []}
    asked: list[int] = []
    parameters = load_model(base, "fp32").num_parameters()

    def ours() -> None:
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(fresh, run)
        call("iterate", run, path, threads)
        found = Sample.read(*sorted((run / "iteration-1" / "samples").glob("**/samples.parquet")))
        tokens[OURS].append(statistics.mean(len(sample.completion_ids) for sample in found))
        asked[:] = [len(sample.prompt_ids) for sample in found[::4]]
        drawn = sum(asked) + sum(len(sample.completion_ids) for sample in found)
        pairs = Pair.read(run / "iteration-1" / "pairs" / "pairs.parquet")
        read = sum(2 * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs)
        operations[OURS].append(float(parameters * (2 * drawn + (2 + 6) * read)))

    def scripts() -> None:
        work = folder / "scripts"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for part in ("sample", "score", "optimise"):
            call(part, work, path, threads)
        rows = json.loads((work / "samples.json").read_text(encoding="utf-8"))
        lengths = [len(tokenizer(answer)["input_ids"]) for row in rows for answer in row["answers"]]
        tokens[SCRIPTS].append(statistics.mean(lengths))
        pairs = json.loads((work / "pairs.json").read_text(encoding="utf-8"))
        answers = [pair[side][0]["content"] for pair in pairs for side in ("chosen", "rejected")]
        read = 2 * sum(asked) + sum(len(tokenizer(answer)["input_ids"]) for answer in answers)
        operations[SCRIPTS].append(float(parameters * (2 * (sum(asked) + sum(lengths)) + (2 + 6) * read)))

    seconds_of = (lambda work: processed_by_children(work) / threads) if chosen["device"] == "cpu" else timed
    seconds = in_turns({OURS: lambda: seconds_of(ours), SCRIPTS: lambda: seconds_of(scripts)}, chosen["repeats"])
    means = {side: round(statistics.mean(found), 1) for side, found in tokens.items()}
    click.echo(f"{len(prompts)} prompts, 4 responses each; tokens of a response: " + json.dumps(means))
    torch.set_num_threads(threads)
    peak = hardware(chosen["device"], torch.float32)["flops"]
    for side, found in tokens.items():
        median = statistics.median(seconds[side])
        speed, mfu = (
            4 * len(prompts) * statistics.mean(found) / median,
            statistics.mean(operations[side]) / median / peak,
        )
        click.echo(
            f"{side}: {speed:,.1f} tokens of responses a second of the whole iteration; MFU, and of the limit, {mfu:.0%} of"
            f" {peak / 1e9:.0f} GFLOP/s"
        )
    report("iteration", GOALS, seconds, prompts=len(prompts), max_new_tokens=chosen["max_new_tokens"], tokens=means)


if __name__ == "__main__":
    main()
