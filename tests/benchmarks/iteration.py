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
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml

from tests.benchmarks.inputs import REPOSITORY, classifier, prepared
from tests.benchmarks.machine import hardware
from tests.benchmarks.sides import in_turns, report, timed

OURS, SCRIPTS = "this package", "three scripts"
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
    from gshf_release import pipeline, recipe
    from gshf_release.recipe import profile
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


PARTS = {part.__name__: part for part in (sample, score, optimise, iterate)}


def call(part: str, folder: Path, settings: dict[str, Any]) -> None:
    """Do a part in a process of its own."""
    variables = {"OMP_NUM_THREADS": str(settings["threads"]), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.benchmarks.iteration", "--part", part, str(folder)]
    given: dict[str, Any] = {"input": json.dumps(settings), "env": os.environ | variables, "cwd": REPOSITORY}
    done = subprocess.run(command, **given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{part}: {done.stderr[-2000:]}")


class Tokens(NamedTuple):
    """Of the prompts, of the responses, and of the pairs, in which a prompt counts for both responses."""

    prompts: int
    responses: int
    pairs: int

    def operations(self, parameters: int) -> int:
        return parameters * (2 * (self.prompts + self.responses) + (2 + 6) * self.pairs)


def by_package(folder: Path, settings: dict[str, Any]) -> Tokens:
    """Do the iteration in a copy of the run that has come to it."""
    from gshf_release.data.records import Pair, Sample

    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "fresh", run)
    call("iterate", run, settings)
    samples = Sample.read(*sorted((run / "iteration-1" / "samples").glob("**/samples.parquet")))
    pairs = Pair.read(run / "iteration-1" / "pairs" / "pairs.parquet")
    return Tokens(
        prompts=sum(len(sample.prompt_ids) for sample in samples[::4]),
        responses=sum(len(sample.completion_ids) for sample in samples),
        pairs=sum(2 * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs),
    )


def by_scripts(folder: Path, settings: dict[str, Any]) -> Tokens:
    """Do the iteration with the three scripts."""
    from gshf_release.models.checkpoints import load_tokenizer

    work = folder / "scripts"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for part in ("sample", "score", "optimise"):
        call(part, work, settings)
    rows, pairs = (json.loads((work / f"{name}.json").read_text(encoding="utf-8")) for name in ("samples", "pairs"))
    tokenizer = load_tokenizer(Path(settings["base"]))
    options = {"add_generation_prompt": True, "return_dict": True}
    prompts = sum(len(tokenizer.apply_chat_template(row["chat"], **options)["input_ids"]) for row in rows)
    drawn = [answer for row in rows for answer in row["answers"]]
    paired = [pair[side][0]["content"] for pair in pairs for side in ("chosen", "rejected")]
    responses, answers = (sum(len(tokenizer(text)["input_ids"]) for text in texts) for texts in (drawn, paired))
    return Tokens(prompts, responses, 2 * prompts + answers)


SIDES = {OURS: by_package, SCRIPTS: by_scripts}


def processed_by_children(work: Callable[[], Any]) -> float:
    """Return the seconds of processor time of the processes that a call starts and waits for."""
    before = os.times()
    work()
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def write_recipe(folder: Path, base: Path, reward: Path, chosen: dict[str, Any]) -> Path:
    """Write the recipe of one iteration: the quickstart's, with other models and sizes and no wish for short answers."""
    from gshf_release.data import assets

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
@click.option("--part", nargs=2, hidden=True)
def main(**chosen: Any) -> None:
    """Measure and print."""
    from gshf_release.models.checkpoints import device_of, quiet_libraries

    quiet_libraries()
    chosen["device"] = device_of(chosen["device"])
    if chosen["part"]:
        part, folder = chosen["part"]
        PARTS[part](Path(folder), json.load(sys.stdin))
        return
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), chosen)


def begin(folder: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """Bring the run `fresh` up to iteration 1, and return what the sides are given."""
    from gshf_release.data.records import Prompt

    base, reward = prepared(chosen["model"], folder / "model"), classifier(chosen["reward"], folder)
    settings = chosen | {"base": str(base), "reward": str(reward), "profile": str(write_profile(folder, chosen))}
    settings["recipe"] = str(write_recipe(folder, base, reward, chosen))
    call("iterate", folder / "fresh", settings)
    prompts = Prompt.read(folder / "fresh" / "iteration-1" / "prompts" / "prompts.parquet")
    return settings | {"texts": [prompt.messages[-1]["content"] for prompt in prompts]}


def measure(folder: Path, chosen: dict[str, Any]) -> None:
    """Measure both sides, and print."""
    import torch

    from gshf_release.models.checkpoints import load_model

    settings, threads = begin(folder, chosen), chosen["threads"]
    parameters = load_model(Path(settings["base"]), "fp32").num_parameters()
    found: dict[str, list[Tokens]] = {side: [] for side in SIDES}

    def iteration(side: str) -> float:
        seconds_of, shared = (processed_by_children, threads) if chosen["device"] == "cpu" else (timed, 1)
        return seconds_of(lambda: found[side].append(SIDES[side](folder, settings))) / shared

    seconds = in_turns({side: partial(iteration, side) for side in SIDES}, chosen["repeats"])
    prompts = len(settings["texts"])
    responses = {side: statistics.mean(tokens.responses for tokens in each) for side, each in found.items()}
    means = {side: round(tokens / (4 * prompts), 1) for side, tokens in responses.items()}
    click.echo(f"{prompts} prompts, 4 responses each; tokens of a response: " + json.dumps(means))
    torch.set_num_threads(threads)
    rates = hardware(chosen["device"], torch.float32)
    for side, each in found.items():
        median = statistics.median(seconds[side])
        use = rates.used(statistics.mean(tokens.operations(parameters) for tokens in each), median)
        click.echo(
            f"{side}: {responses[side] / median:,.1f} tokens of responses a second of the whole iteration; {use}"
        )
    report("iteration", seconds, prompts=prompts, max_new_tokens=chosen["max_new_tokens"], tokens=means)


if __name__ == "__main__":
    main()
