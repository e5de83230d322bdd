"""RAFT's supervised step: cross-entropy on the best response to each prompt (arXiv 2304.06767), on TRL's SFTTrainer.

TRL is handed token ids and labels, so it neither tokenises text again nor appends an EOS to a response that was cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gshf_release.data.records import Winner
from gshf_release.data.results import Cell
from gshf_release.optimization.padding_free import IGNORED, padding_free
from gshf_release.optimization.policy import (
    PolicyParameters,
    last_quarter,
    policy_stage,
    resumable,
    train_policy,
    training_arguments,
)
from gshf_release.run.context import StageContext
from gshf_release.run.directory import read_json
from gshf_release.run.stage import Stage, iteration_row

IDENTITY = "train-raft/1"


def declare_raft(iteration: int, *, init: str, sources: Sequence[str], adapter: bool = False) -> Stage:
    """Declare the supervised step of iteration `iteration` from the `model` of stage `init`, on `<source>/winners`."""
    files = (("winners", "winners.parquet"),)
    return policy_stage(
        iteration,
        identity=IDENTITY,
        work="gshf_release.optimization.raft:train_raft",
        numbers="gshf_release.optimization.raft:raft_cells",
        init=init,
        sources=sources,
        files=files,
        adapter=adapter,
    )


def train_raft(context: StageContext) -> None:
    """Train the policy on the best responses and write its FP32 weights and the metrics of every optimiser step.

    Raises:
        DataError: No responses are left to train on.
    """
    rows = _rows(context)
    lengths = [len(row["input_ids"]) for row in rows]

    def build(model: Any, tokenizer: Any, device: str) -> Any:
        return _trainer(context, model, tokenizer, rows, lengths, device)

    train_policy(context, lengths, counted="responses", dropped="winners", build=build, metrics=_metrics)


def raft_cells(context: StageContext) -> list[Cell]:
    """Return the loss at the first and over the last optimiser steps, and how many weights moved."""
    path = context.output("training.json")
    document = read_json(path)
    steps = document["steps"]
    row = iteration_row(context.parameters(PolicyParameters).iteration)
    place = {"table": "training", "row": row, "artefact": context.run.relative(path), "n": document["responses"]}
    return [
        Cell(metric="loss, first step", value=steps[0]["loss"], unit="nats per token", **place),
        Cell(metric="loss, last quarter", value=last_quarter(steps, "loss"), unit="nats per token", **place),
        Cell(metric="optimiser steps", value=len(steps), **place),
        Cell(metric="weights changed after BF16", value=100 * document["changed_after_bf16"], unit="%", **place),
    ]


def _rows(context: StageContext) -> list[dict[str, Any]]:
    """Return ids and labels; the prompt's labels are ignored by the loss."""
    sources = context.parameters(PolicyParameters).sources
    paths = [context.input(f"{source}/winners", "winners.parquet") for source in sources]
    return [
        {
            "prompt_id": winner.prompt_id,
            "input_ids": winner.prompt_ids + winner.completion_ids,
            "labels": [IGNORED] * len(winner.prompt_ids) + winner.completion_ids,
        }
        for winner in Winner.read(*paths)
    ]


def _metrics(entry: Mapping[str, float]) -> dict[str, float]:
    return {"step": entry["step"], "loss": entry["loss"]}


def _trainer(
    context: StageContext, model: Any, tokenizer: Any, rows: list[dict[str, Any]], lengths: list[int], device: str
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    order, arguments = training_arguments(context, [row["prompt_id"] for row in rows], lengths, device)
    configuration = SFTConfig(
        **arguments,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        router_aux_loss_coef=0.0,  # the load-balancing loss of a mixture of experts is no part of the cross-entropy
    )
    routing = _routing(model)
    empty = {"input_ids": rows[0]["input_ids"][:1], "labels": [IGNORED]}
    examples = [
        empty if index is None else {key: rows[index][key] for key in ("input_ids", "labels")} for index in order
    ]
    trainer = padding_free(SFTTrainer)(
        model=model,
        args=configuration,
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
        callbacks=[resumable(context)],
    )
    for name, value in routing.items():  # TRL writes its own into the configuration, which is saved with the policy
        setattr(model.config.get_text_config(), name, value)
    return trainer


def _routing(model: Any) -> dict[str, Any]:
    """Return what a configuration says about the loss of its routers."""
    config = model.config.get_text_config()
    names = ("output_router_logits", "router_aux_loss_coef")
    return {name: getattr(config, name) for name in names if hasattr(config, name)}
