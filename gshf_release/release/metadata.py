"""The metadata of cards, serialised by the Hub client's own classes: what search, filters and leaderboards read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gshf_release.data.results import Cell, select
from gshf_release.evaluation.alpaca_eval.annotations import BASELINE
from gshf_release.evaluation.metrics import CALIBRATED, FAILED, doubt
from gshf_release.evaluation.verdicts.reading import OTHER_MODEL
from gshf_release.prompts.benchmark_files import ALPACA_EVAL, HubFile
from gshf_release.release.card_data import Card
from gshf_release.release.facts import HUB_ID
from gshf_release.release.folders import RESULTS_FILE
from gshf_release.report import partial, tables
from gshf_release.report.partial import BenchmarkGroup
from gshf_release.run.stage import iteration_row

HUB = "https://huggingface.co"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
INDEXED = ("win rate", "gain over base")


@dataclass(frozen=True, slots=True)
class Official:
    """A public benchmark, and the one setting under which its name may stand in a model-index."""

    name: str
    judge: str
    baseline: str
    n: int
    data: HubFile
    config: str

    @property
    def place(self) -> dict[str, str | None]:
        """Return what the Hub's client calls the benchmark's data."""
        return {
            "dataset_name": self.name,
            "dataset_type": self.data.repository,
            "dataset_revision": self.data.revision,
            "dataset_config": self.config,
            "dataset_split": "eval",
        }


ALPACA_EVAL_2 = Official(
    name="AlpacaEval 2",
    judge="weighted_alpaca_eval_gpt4_turbo",
    baseline="gpt-4-1106-preview",
    n=805,
    data=next(source for source in ALPACA_EVAL.sources if isinstance(source, HubFile)),
    config="alpaca_eval_gpt4_baseline",
)


MT_BENCH_JUDGE, MT_BENCH_ANSWERS = "mt_bench_gpt4_single", 160
"""80 questions of two turns, each rated once."""
BENCHMARK_METRICS = {
    "win rate": ("win_rate", "win rate, %"),
    "LC win rate": ("length_controlled_winrate", "length-controlled win rate, %"),
    CALIBRATED: ("calibrated_win_rate", "win rate calibrated to the official judge, %"),
    "average": ("average_rating", "mean rating of both turns, 1-10"),
    "adjusted win rate": ("adjusted_win_rate", "win rate with a tie as half a win, %"),
}
"""By metric: its type and name in a model-index."""


def model(card: Card) -> str:
    """Return the metadata of a model card as YAML, with a model-index of this iteration's measured numbers alone."""
    return _model(
        card, library="transformers", relation="finetune", base=card.facts.base_model, results=_measured(card)
    )


def quantized(card: Card, library: str = "gguf") -> str:
    """Return the metadata of a card of quantizations: they come from the release itself, and carry none of its numbers."""
    base = card.repository if HUB_ID.fullmatch(card.repository) else None
    return _model(card, library=library, relation="quantized", base=base, results=[])


def reported(card: Card, document: Mapping[str, Any]) -> str:
    """Return the metadata of a card made from reported facts; `document` is the file in eval/reported."""
    results = _reported(card, document)
    return _model(card, library="transformers", relation="finetune", base=card.facts.base_model, results=results)


def _model(card: Card, *, library: str, relation: str, base: str | None, results: list[Any]) -> str:
    from huggingface_hub import ModelCardData

    facts = card.facts
    method = "raft" if card.recipe.loop.algorithm == "raft" else "gshf"
    kind = ["rejection-sampling"] if method == "raft" else ["dpo", "iterative-dpo"]
    data = ModelCardData(
        license=facts.license,
        license_name=facts.license_name,
        license_link=facts.license_link,
        language=list(facts.language),
        library_name=library,
        pipeline_tag="text-generation",
        base_model=[base] if base else None,
        base_model_relation=relation if base else None,
        datasets=[*facts.datasets, *card.datasets] or None,
        tags=[method, *kind, "rlhf", "alignment", *facts.tags],
        model_name=card.repository.rpartition("/")[2],
        eval_results=results or None,
    )
    if not results:
        del data.model_name  # the serializer takes it away only together with the results
    return _ordered(
        data, ("license", "license_name", "license_link", "language", "library_name", "pipeline_tag", "base_model")
    )


def _ordered(data: Any, first: Sequence[str]) -> str:
    return f"{data.to_yaml(original_order=[*first, 'base_model_relation', 'datasets', 'tags'])}\n"


def _result(kind: str, name: str, value: float, arguments: dict[str, Any], **place: Any) -> Any:
    """Return one entry of a model-index."""
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        task_name="Chat",
        metric_type=kind,
        metric_name=name,
        metric_value=value,
        metric_args=arguments,
        **place,
    )


def _measured(card: Card) -> list[Any]:
    """Return the results of this iteration on the run's own sets of prompts; a stand-in never bears a benchmark's name."""
    results = []
    for name in ("eval", "test"):
        place = {
            "dataset_type": f"gshf-release-{name}-prompts",
            "dataset_name": f"{tables.TITLES[name]} of the run (stand-in annotator)",
            **_source(card),
        }
        for entry in select(card.cells, table=name, row=iteration_row(card.iteration)):
            if entry.metric in INDEXED and entry.value is not None:
                kind, title = entry.metric.replace(" ", "_"), f"{entry.metric}, {entry.decoding}, {entry.judge}"
                results.append(_result(kind, title, round(entry.value, 4), _arguments(entry, card.iteration), **place))
    return [*results, *_benchmarks(card)]


def _benchmarks(card: Card) -> list[Any]:
    """Return this iteration's results of benchmarks; the official name is for the official judge and setting alone."""
    results = []
    row = iteration_row(card.iteration)
    for group in partial.groups(card.cells):
        chosen = group.of(card.cells, row=row)
        if partial.is_partial(chosen, row) or _another_answered(chosen):
            continue  # part of a benchmark is no result of it, nor is another model's judgment the judge's; the card says so
        for entry in chosen:
            known = BENCHMARK_METRICS.get(entry.metric)
            if known is None or entry.value is None:
                continue
            arguments = _arguments(entry, card.iteration) | ({"note": entry.note} if entry.note else {})
            place = _dataset(chosen, group) | _source(card)
            results.append(_result(*known, round(entry.value, 4), arguments, **place))
    return results


def _dataset(cells: Sequence[Cell], group: BenchmarkGroup) -> dict[str, Any]:
    """Return how a benchmark is called: by its own name only if every question was put to its own judge and baseline."""
    if not is_official(cells, group):
        return {"dataset_name": group.name, "dataset_type": group.table}
    if group.mark != "LC win rate":
        return {"dataset_name": "MT-Bench", "dataset_type": group.table}
    return ALPACA_EVAL_2.place


def is_official(cells: Sequence[Cell], group: BenchmarkGroup) -> bool:
    """Return whether a group of cells was measured as the benchmark's published numbers are."""
    if _another_answered(cells):
        return False
    asked = {entry.n for entry in cells if entry.metric == FAILED}
    if group.mark == "LC win rate":
        known = ALPACA_EVAL_2
        own = (group.table, group.judge) == ("alpaca_eval_2", known.judge)
        return own and group.baseline in (known.baseline, BASELINE) and asked == {known.n}
    return (group.table, group.judge) == ("mt_bench", MT_BENCH_JUDGE) and asked == {MT_BENCH_ANSWERS}


def _another_answered(cells: Sequence[Cell]) -> bool:
    """Return whether a server answered with another model than the judge's."""
    return any(entry.metric == doubt(OTHER_MODEL) and entry.value for entry in cells)


def substitutes(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Return `(benchmark, judge)` of everything that was not measured as published numbers are."""
    found = [group for group in partial.groups(cells) if not is_official(group.of(cells), group)]
    return list(dict.fromkeys((group.table, group.judge) for group in found))


def _arguments(entry: Cell, iteration: int) -> dict[str, Any]:
    arguments = {
        "judge": entry.judge,
        "baseline": entry.baseline,
        "decoding": entry.decoding,
        "iteration": iteration,
        "n": entry.n,
        "standard_error": None if entry.standard_error is None else round(entry.standard_error, 4),
    }
    return {key: value for key, value in arguments.items() if value is not None}


def _source(card: Card) -> dict[str, Any]:
    """Return where the numbers can be read, once the release is on the Hub."""
    if not HUB_ID.fullmatch(card.repository):
        return {}
    address = f"{HUB}/{card.repository}/blob/iter-{card.iteration}/{RESULTS_FILE}"
    return {"source_name": "results of the run, measured by gshf-release", "source_url": address}


def _reported(card: Card, document: Mapping[str, Any]) -> list[Any]:
    """Return the published numbers of this iteration, under the benchmark's name only if judge and baseline are its own."""
    row = next(row for row in document["rows"] if row["row"] == iteration_row(card.iteration))
    known = ALPACA_EVAL_2
    official = (
        document["benchmark"] == known.name
        and known.judge in document["judge"]
        and document["baseline"] == known.baseline
    )
    other = {"dataset_name": f"{document['benchmark']} (another judge or baseline)", "dataset_type": "reported"}
    source = {"source_name": "model card of the authors", "source_url": document["source"]}
    place = (known.place if official else other) | source
    arguments = {
        "judge": document["judge"],
        "baseline": document["baseline"],
        "iteration": card.iteration,
        **({"n": known.n} if official else {}),
        "standard_error": "not reported",
        "decoding": "not reported",
        f"mean_length_{document['length_unit']}": row["length"],
        "origin": "reported, not measured here",
    }
    return [
        _result(*BENCHMARK_METRICS[metric], row[metric], arguments, **place) for metric in ("LC win rate", "win rate")
    ]


def data_set(*, licence: str | None, name: str, language: Sequence[str], count: int, **changes: Any) -> str:
    """Return the metadata of a data set card as YAML.

    Args:
        licence: The Hub's identifier, or None if nobody stated one.
        name: What people read.
        language: ISO 639 codes; empty if unknown.
        count: Rows.
        changes: Further keys of the Hub's data set cards, such as `tags` and `configs`.
    """
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        license=licence,
        language=list(language) or None,
        pretty_name=name,
        size_categories=[next((size for limit, size in SIZES if count < limit), "n>1M")],
        **changes,
    )
    return (
        f"{data.to_yaml(original_order=['license', 'language', 'pretty_name', 'task_categories', 'size_categories'])}\n"
    )
