"""AI prompts by self-instruct (arXiv 2212.10560), as a stage of a run.

    until there are enough:
        for each request of a round: draw 6 seeds and 2 written prompts, ask the writer to go on with the list
        parse the lists; filter, decontaminate and compare each entry; accept or drop it

Everything but the writer is decided by the run's seed and the order of the answers, and every answer is recorded as soon as it
is there: the same command goes on after a kill and comes to the same prompts. The stage belongs to a run of its own
(`gshf-release prompts`), whose prompts a training run names in `prompts.source`: the number of prompts is known before training
is planned, training does not hang on a server, and one set of prompts serves many runs.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gshf_release.data.hashing import seed_from, sha256_json, sha256_tree, tree
from gshf_release.data.records import Prompt
from gshf_release.data.results import Cell
from gshf_release.errors import RecipeError
from gshf_release.prompts import usage
from gshf_release.prompts.decontamination import REASONS, Decontaminator, load
from gshf_release.prompts.filters import RULES
from gshf_release.prompts.numbered_lists import parse, request_text
from gshf_release.prompts.pool import DUPLICATE, NEAR_COPY, Accepted, Candidate, Dropped, Pool
from gshf_release.prompts.split import ordered, read_prompts, read_rows, source_path
from gshf_release.prompts.writers import (
    SERVED,
    Answer,
    ListRequest,
    Writer,
    WriterRecord,
    ask_once,
    make_writer,
    writer_model,
)
from gshf_release.recipe import Augmentation, Recipe
from gshf_release.run import interrupt
from gshf_release.run.context import Progress, StageContext
from gshf_release.run.directory import write_json
from gshf_release.run.persistent_worker import ENGINE
from gshf_release.run.stage import Parameters, Stage

IDENTITY = "write-prompts/1"
STAGE = usage.WRITTEN[0]
ACCEPTED, DROPPED, FACTS = usage.WRITTEN[1], "dropped.parquet", "facts.json"
RECORD = "answers.jsonl"
"""In the run's folder: what the writer said. It belongs to no stage, because it outlives changed settings."""
TABLE = "prompts"
SPARE = "after the target"
REASONS_TO_DROP = (*RULES, DUPLICATE, *REASONS, NEAR_COPY, SPARE)
CHECKED, UNCHECKED = "prompts compared with", "NOT CHECKED: its file is missing"
STOPPED = {
    "target": "the target is reached",
    "maximum_requests": "stopped at prompts.augmentation.maximum_requests",
    "nothing new": "stopped: the writer had nothing new to say",
}
STALLED_ROUNDS = 8
"""After so many rounds in a row that gave nothing new, the writer has no more to say."""


class AugmentationParameters(Parameters):
    """Say what decides the prompts beside the recipe, by content hash."""

    seeds_sha256: str
    request_sha256: str
    """Of how a request is worded."""
    excluded_sha256: str
    evaluation_sha256: str
    """Empty if the recipe names no evaluation prompts."""
    checked: tuple[str, ...]
    """The benchmarks whose prompts are compared with."""
    unchecked: tuple[str, ...]


def declare_augmentation(recipe: Recipe, benchmarks: Mapping[str, str], excluded_sha256: str) -> Stage:
    """Declare the stage that writes the prompts.

    Args:
        recipe: The recipe.
        benchmarks: Why each benchmark cannot be checked against; an empty text means that it can.
        excluded_sha256: Content hash of what `prompts.exclude` names.
    """
    seeds = source_path(recipe.prompts.augmentation.seeds, "training/prompts")
    return Stage(
        name=STAGE,
        identity=IDENTITY,
        work="gshf_release.prompts.augmentation:write_augmented_prompts",
        kind="sampling",
        outputs=(ACCEPTED, DROPPED, FACTS),
        keys=("seed", "base", "prompts.augmentation", "evaluation.prompts"),
        parameters=AugmentationParameters(
            seeds_sha256=sha256_tree(tree(seeds)),
            request_sha256=sha256_json(request_text(["example"], 1)),
            excluded_sha256=excluded_sha256,
            evaluation_sha256=_evaluation_sha256(recipe.evaluation.prompts),
            checked=tuple(name for name, missing in benchmarks.items() if not missing),
            unchecked=tuple(name for name, missing in benchmarks.items() if missing),
        ).as_json(),
        numbers="gshf_release.prompts.augmentation:augmentation_cells",
        runs_in="" if writer_model(recipe)[0].startswith(SERVED) else ENGINE,
    )


@dataclass
class Tally:
    """Records what the rounds so far came to."""

    requests: int = 0
    lists_cut: int = 0
    entries_cut: int = 0
    tokens: int = 0
    stopped: str = ""
    """`target`, `maximum_requests` or `nothing new`."""


def write_augmented_prompts(context: StageContext) -> None:
    """Write prompts until there are enough.

    Raises:
        RecipeError: There are fewer seeds than one request shows.
        GshfError: The writer cannot be had, or fails.
    """
    recipe = context.recipe
    of, similarity = context.parameters(AugmentationParameters), recipe.prompts.augmentation.similarity
    decontaminator = Decontaminator(load(of.checked), similarity) if of.checked else None
    excluded = usage.excluded(recipe)
    seeds, removed = usable_seeds(recipe, excluded, decontaminator)
    known = [*seeds, *_evaluation_prompts(recipe), *excluded.texts]
    pool = Pool(recipe.prompts.augmentation, recipe.seed, known, decontaminator)
    tally = _rounds(context, pool, seeds, make_writer(recipe, context.profile))
    accepted = _up_to(pool.accepted, recipe.prompts.augmentation.target)
    spare = [
        Dropped(row.prompt_id, row.prompt, row.request, row.item, SPARE, "") for row in pool.accepted[len(accepted) :]
    ]
    Accepted.write(accepted, context.output(ACCEPTED))
    Dropped.write(sorted([*pool.dropped, *spare], key=lambda row: (row.request, row.item)), context.output(DROPPED))
    write_json(
        context.output(FACTS),
        asdict(tally)
        | {
            "seeds": len(seeds),
            "removed_seeds": removed,
            "excluded": len(excluded.rows),
            "checked": of.checked,
            "unchecked": of.unchecked,
            "benchmark_prompts": _benchmark_counts(decontaminator),
        },
    )


def usable_seeds(
    recipe: Recipe, excluded: usage.ExcludedPrompts, decontaminator: Decontaminator | None
) -> tuple[list[str], list[dict[str, str]]]:
    """Return the seeds in an order that their content decides, and those removed with the reason.

    A seed is one user turn. Benchmark prompts, evaluation prompts, and validation or test prompts of an excluded run are none.

    Raises:
        RecipeError: Too few are left for one request.
    """
    settings = recipe.prompts.augmentation
    path = source_path(settings.seeds, "training/prompts")
    evaluating = excluded.evaluating | {usage.content_id(prompt.messages) for prompt in _evaluation_rows(recipe)}
    rows = ordered(read_prompts(path, on_bad_row=recipe.prompts.on_bad_row), recipe.seed)
    texts = [usage.user_text(row.messages) for row in rows]
    contaminated = decontaminator.check(texts) if decontaminator else [None] * len(rows)
    seeds, removed = [], []
    for row, text, hit in zip(rows, texts, contaminated, strict=True):
        if len(row.messages) > 1:
            removed.append({"prompt_id": row.prompt_id, "reason": "more than one turn", "of": ""})
        elif row.prompt_id in evaluating:
            removed.append({"prompt_id": row.prompt_id, "reason": "evaluates a run", "of": ""})
        elif hit is not None:
            removed.append({"prompt_id": row.prompt_id, "reason": hit.reason, "of": hit.key})
        else:
            seeds.append(text)
    needed = settings.shown_seeds + settings.shown_generated
    if len(seeds) < needed:
        raise RecipeError(
            f"{path} has {len(seeds)} usable seeds, but one request shows {needed} prompts.",
            hint="Give more seeds, or lower prompts.augmentation.shown_seeds.",
        )
    return seeds, removed


def asks_of_round(
    number: int, pool: Pool, seeds: Sequence[str], settings: Augmentation, seed: int
) -> list[ListRequest]:
    """Return the requests of a round: each shows seeds and, once there are some, written prompts, in random order."""
    examples = pool.examples
    asks = []
    last = min((number + 1) * settings.requests_per_round, settings.maximum_requests)
    for request in range(number * settings.requests_per_round, last):
        draw = random.Random(seed_from(seed, "augmentation", "request", request))
        generated = draw.sample(examples, min(settings.shown_generated, len(examples)))
        shown = draw.sample(seeds, settings.shown_seeds + settings.shown_generated - len(generated)) + generated
        draw.shuffle(shown)
        answer_seed = seed_from(seed, "augmentation", "answer", request)
        asks.append(ListRequest(request_text(shown, settings.asked), len(shown) + 1, answer_seed))
    return asks


def _rounds(context: StageContext, pool: Pool, seeds: Sequence[str], writer: Writer) -> Tally:
    """Ask round after round."""
    settings = context.recipe.prompts.augmentation
    record = WriterRecord(context.run.path / RECORD)
    tally = Tally()
    number = stalled = 0
    while not tally.stopped:
        interrupt.check()
        begun = time.perf_counter()
        asks = asks_of_round(number, pool, seeds, settings, context.seed)
        before = len(pool.accepted)
        answers, new = ask_once(writer, asks, settings, record, _within(context, pool, number))
        _take(answers, tally, pool)
        seconds = time.perf_counter() - begun
        kept = len(pool.accepted) - before
        if new:
            tokens = sum(answers[index].tokens for index in new)
            context.log("round", number=number, seconds=round(seconds, 3), kept=kept, tokens=tokens, requests=len(new))
        stalled = 0 if kept else stalled + 1
        number += 1
        context.progress(min(pool.count, settings.target), settings.target, progress_text(pool, seconds, kept))
        tally.stopped = _why_stop(pool, settings, tally, stalled)
    return tally


def progress_text(pool: Pool, seconds: float, kept: int) -> str:
    """Return `prompts (yield 43%, 120 a minute)`."""
    entries = len(pool.accepted) + len(pool.dropped)
    share = 100 * len(pool.accepted) / max(entries, 1)
    return f"prompts (yield {share:.0f}%, {60 * kept / max(seconds, 1e-9):.0f} a minute)"


def _take(answers: Sequence[Answer], tally: Tally, pool: Pool) -> None:
    """Parse a round's lists and let the pool decide."""
    candidates: list[Candidate] = []
    for answer in answers:
        parsed = parse(answer.text, cut=answer.finish_reason == "length")
        candidates += [Candidate(text, tally.requests, item) for item, text in enumerate(parsed.items)]
        tally.requests += 1
        tally.lists_cut += answer.finish_reason == "length"
        tally.entries_cut += parsed.cut
        tally.tokens += answer.tokens
    pool.consider(candidates)


def _why_stop(pool: Pool, settings: Augmentation, tally: Tally, stalled: int) -> str:
    if pool.count >= settings.target:
        return "target"
    if tally.requests >= settings.maximum_requests:
        return "maximum_requests"
    return "nothing new" if stalled >= STALLED_ROUNDS else ""


def _up_to(rows: Sequence[Accepted], target: int) -> list[Accepted]:
    """Return the rows up to the last that the target needs."""
    kept: list[Accepted] = []
    count = 0
    for row in rows:
        if count == target:
            break
        kept.append(row)
        count += not row.example
    return kept


def _evaluation_sha256(reference: str | None) -> str:
    return "" if reference is None else sha256_tree(tree(source_path(reference, "eval/prompts")))


def _evaluation_rows(recipe: Recipe) -> list[Prompt]:
    if recipe.evaluation.prompts is None:
        return []
    path = source_path(recipe.evaluation.prompts, "eval/prompts")
    return read_rows(path, on_bad_row=recipe.prompts.on_bad_row).values


def _evaluation_prompts(recipe: Recipe) -> list[str]:
    """Return the texts of the recipe's evaluation prompts: near-copies of them must not be trained on."""
    return [usage.user_text(row.messages) for row in _evaluation_rows(recipe)]


def _benchmark_counts(decontaminator: Decontaminator | None) -> dict[str, int]:
    keys = decontaminator.keys if decontaminator else []
    return dict(Counter(key.partition("/")[0] for key in keys))


def _within(context: StageContext, pool: Pool, number: int) -> Progress:
    """Return how progress inside a round is shown."""
    target = context.recipe.prompts.augmentation.target

    def progress(done: int, total: int, unit: str) -> None:
        context.progress(min(pool.count, target), target, f"prompts; round {number + 1}: {done} of {total} {unit}")

    return progress


def augmentation_cells(context: StageContext) -> list[Cell]:
    """Return what came of it: requests, entries, yield, every reason to drop with its count, benchmarks not looked at."""
    facts = json.loads(context.output(FACTS).read_text(encoding="utf-8"))
    accepted = Accepted.read(context.output(ACCEPTED))
    dropped = Dropped.read(context.output(DROPPED))
    good = len(accepted) + sum(row.reason == SPARE for row in dropped)
    entries = len(accepted) + len(dropped)
    examples = sum(row.example for row in accepted)

    def cell(metric: str, value: float | None, note: str = "", file: str = FACTS, **more: Any) -> Cell:
        place = {"table": TABLE, "row": "written", "artefact": f"{STAGE}/{file}"}
        return Cell(metric=metric, value=value, note=note, **place, **more)

    return [
        cell("in the set", len(accepted) - examples, STOPPED[facts["stopped"]], ACCEPTED),
        cell("shown to the writer, not in the set", examples, file=ACCEPTED),
        cell("requests", facts["requests"], f"{facts['lists_cut']} answers cut by the limit"),
        cell("entries", entries, f"{facts['entries_cut']} incomplete ones discarded", DROPPED),
        cell("yield", 100 * good / max(entries, 1), file=DROPPED, n=entries, unit="%"),
        *(cell(f"dropped: {name}", *_dropped_for(name, dropped), DROPPED) for name in REASONS_TO_DROP),
        cell("seeds", facts["seeds"], f"{len(facts['removed_seeds'])} removed"),
        *(cell(f"benchmark: {name}", facts["benchmark_prompts"][name], CHECKED) for name in facts["checked"]),
        *(cell(f"benchmark: {name}", None, UNCHECKED) for name in facts["unchecked"]),
    ]


def _dropped_for(reason: str, dropped: Sequence[Dropped]) -> tuple[int, str]:
    """Return how many prompts were dropped for a reason and, of benchmarks, which prompts they were too close to."""
    rows = [row for row in dropped if row.reason == reason]
    keys = sorted({row.of for row in rows}) if reason in REASONS else []
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return len(rows), ", ".join(keys[:5]) + more
