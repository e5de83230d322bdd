"""How fast 60,000 prompts are deduplicated by ROUGE-L, against two ways of making the same decisions. No test: run it by hand.

    python -m tests.benchmarks.dedupe                              # 60,000 prompts of about 18 words
    python -m tests.benchmarks.dedupe --count 4000 --repeats 3     # reduced: ratios grow with the count
    python -m tests.benchmarks.dedupe --words 32 --check 2000

The sides, each on one thread, in seconds of processor time:

- `SimilarityIndex`, which the package uses;
- rapidfuzz: a greedy filter with `process.cdist` over blocks of new prompts against all that are kept, on texts already encoded
  as one character a word;
- rouge_score as self-instruct calls it: one `scorer.score` for every pair of a new prompt and a kept one. `--sampled` pairs are
  timed, and the seconds of all pairs are extrapolated from them; they would take a day.

The prompts are synthetic: random walks over the word pairs of the seed prompts in training/prompts/seed.jsonl, one in ten an
earlier one with a word replaced. They read like nonsense, but share words and phrases as prompts of one origin do. Both exact
sides must keep the same prompts, or the benchmark fails; `--check` compares the decisions on the first so many with those of
rouge_score too.
"""

from __future__ import annotations

import os
import random
import resource
from collections import defaultdict
from itertools import pairwise

import click
import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from gshf_release.prompts.rouge import THRESHOLD, SimilarityIndex
from gshf_release.prompts.split import read_prompts, source_path
from gshf_release.prompts.words import words as words_of
from tests.benchmarks.sides import in_turns, processed, report

BLOCK = 256
CUTOFF = 0.53
"""Below the least LCS / max(m, n) of two similar texts."""


def seeds() -> list[str]:
    return [prompt.messages[-1]["content"] for prompt in read_prompts(source_path("seed", "training/prompts"))]


def expansion(texts: list[str], count: int, mean_words: int, seed: int = 0) -> list[str]:
    """Return `count` synthetic prompts."""
    draw = random.Random(seed)
    following: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        words = text.split()
        for word, after in pairwise(words):
            following[word].append(after)
    starts = [text.split()[0] for text in texts]
    made: list[str] = []
    while len(made) < count:
        if made and draw.random() < 0.1:
            words = draw.choice(made).split()
            words[draw.randrange(len(words))] = draw.choice(draw.choice(texts).split())
        else:
            length = draw.randint(max(3, mean_words // 3), 2 * mean_words - mean_words // 3)
            words = [draw.choice(starts)]
            while len(words) < length:
                words.append(draw.choice(following[words[-1]] or starts))
        made.append(" ".join(words))
    return made


def agreement(known: list[str], texts: list[str]) -> int:
    """Return on how many of `texts` rouge_score, asked about every pair, decides as the index does."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    kept = list(known)
    index = SimilarityIndex()
    index.add(known)
    same = 0
    for text, hit in zip(texts, index.add_distinct(texts), strict=True):
        similar = any(scorer.score(other, text)["rougeL"].fmeasure > THRESHOLD for other in kept)
        same += similar == (hit is not None)
        if not similar:
            kept.append(text)
    return same


def by_index(known: list[str], texts: list[str]) -> list[bool]:
    """Return which prompts the package keeps."""
    index = SimilarityIndex()
    index.add(known)
    return [hit is None for hit in index.add_distinct(texts)]


def by_cdist(known: list[str], texts: list[str]) -> list[bool]:
    """Return which prompts a greedy filter over rapidfuzz's `cdist` keeps."""
    characters: dict[str, str] = {}

    def encode(text: str) -> str:
        return "".join(characters.setdefault(word, chr(0x100 + len(characters))) for word in words_of(text))

    kept, found = [encode(text) for text in known], []
    for start in range(0, len(texts), BLOCK):
        block = [encode(text) for text in texts[start : start + BLOCK]]
        similar = _exceeding(block, kept).any(axis=1)
        among = _exceeding(block, block)
        chosen: list[int] = []
        for number in range(len(block)):
            fresh = not similar[number] and not among[number, chosen].any()
            found.append(bool(fresh))
            if fresh:
                chosen.append(number)
        kept += [block[number] for number in chosen]
    return found


def _exceeding(block: list[str], others: list[str]) -> np.ndarray:
    """Return whether ROUGE-L F exceeds the threshold, (new prompts, others), in the order of operations of rouge_score.

    F > 0.7 needs LCS > 0.35 (m + n), and with LCS <= min(m, n) that LCS / max(m, n) > 0.538: rapidfuzz skips what is below.
    """
    mine, theirs = (np.array([max(1, len(text)) for text in texts]) for texts in (block, others))
    shares = process.cdist(
        block, others, scorer=LCSseq.normalized_similarity, score_cutoff=CUTOFF, dtype=np.float64, workers=1
    )
    common = np.rint(shares * np.maximum(mine[:, None], theirs[None, :]))
    precision, recall = common / mine[:, None], common / theirs[None, :]
    total = precision + recall
    return 2 * precision * recall / np.where(total > 0, total, 1.0) > THRESHOLD


def by_rouge_score(known: list[str], texts: list[str], kept: list[bool], sampled: int) -> float:
    """Return the seconds that rouge_score would take for every pair of a new prompt and a kept one."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    before = len(known) + np.cumsum([0, *kept[:-1]])
    draw = random.Random(1)
    pairs = [(draw.choice(known + texts), draw.choice(texts)) for _ in range(sampled)]
    seconds = processed(lambda: [scorer.score(other, text)["rougeL"].fmeasure for other, text in pairs])
    return seconds / sampled * float(before.sum())


@click.command()
@click.option("--count", default=60_000, show_default=True, help="Synthetic prompts.")
@click.option("--words", default=18, show_default=True, help="Mean words a prompt.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--sampled", default=2000, show_default=True, help="Pairs on which rouge_score is timed.")
@click.option("--check", default=0, metavar="N", help="Compare the first N decisions with those of rouge_score.")
def main(count: int, words: int, repeats: int, sampled: int, check: int) -> None:
    """Measure and print."""
    known = seeds()
    texts = expansion(known, count, words)
    mean = sum(len(text.split()) for text in texts) / len(texts)
    click.echo(
        f"{len(texts)} synthetic prompts from {len(known)} seeds, mean {mean:.1f} words; load {os.getloadavg()[0]:.1f}"
    )
    if check:
        click.echo(f"decides as rouge_score on {agreement(known, texts[:check])} of the first {check}")
    decisions: dict[str, list[bool]] = {}

    def side(name: str, decide: object) -> float:
        return processed(lambda: decisions.__setitem__(name, decide(known, texts)))  # type: ignore[operator]

    memory: list[float] = []

    def ours() -> float:
        seconds = side("SimilarityIndex", by_index)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)  # the first time, before the others ran
        return seconds

    seconds = in_turns(
        {
            "SimilarityIndex": ours,
            "rapidfuzz cdist": lambda: side("rapidfuzz cdist", by_cdist),
            "rouge_score, extrapolated": lambda: by_rouge_score(known, texts, decisions["SimilarityIndex"], sampled),
        },
        repeats,
    )
    if decisions["SimilarityIndex"] != decisions["rapidfuzz cdist"]:
        raise click.ClickException("The two exact filters decided differently.")
    kept = sum(decisions["SimilarityIndex"])
    facts = {"prompts": count, "mean_words": round(mean, 1), "kept": kept, "gigabytes": round(memory[0], 2)}
    report("dedupe", seconds, **facts, sampled_pairs=sampled)


if __name__ == "__main__":
    main()
