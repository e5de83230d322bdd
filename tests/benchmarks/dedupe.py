"""How fast 60,000 prompts are deduplicated: seconds, memory, and how many stay. Not a test: run it by hand.

    python -m tests.benchmarks.dedupe                  # 60,000 prompts of about 18 words
    python -m tests.benchmarks.dedupe --words 32 --check 2000

The prompts are synthetic: random walks over the word pairs of the seed prompts in training/prompts/seed.jsonl, one in ten an
earlier one with a word replaced. They read like nonsense, but share words and phrases as prompts of one origin do. `--check`
compares the decisions on the first so many with those of rouge_score, which takes a day for all.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import time
from collections import defaultdict
from itertools import pairwise

from gshf_release.prompts.rouge import THRESHOLD, SimilarityIndex
from gshf_release.prompts.split import read_prompts, source_path


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60_000, help="synthetic prompts")
    parser.add_argument("--words", type=int, default=18, help="mean words a prompt")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="compare the first N with rouge_score")
    chosen = parser.parse_args()
    known = seeds()
    texts = expansion(known, chosen.count, chosen.words)
    mean = sum(len(text.split()) for text in texts) / len(texts)
    print(
        f"{len(texts)} synthetic prompts from {len(known)} seeds, mean {mean:.1f} words; load {os.getloadavg()[0]:.1f}"
    )
    if chosen.check:
        print(f"decides as rouge_score on {agreement(known, texts[: chosen.check])} of the first {chosen.check}")
    begun, processor = time.perf_counter(), time.process_time()
    index = SimilarityIndex()
    index.add(known)
    found = index.add_distinct(texts)
    seconds, processor = time.perf_counter() - begun, time.process_time() - processor
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    kept = sum(hit is None for hit in found)
    print(f"{seconds:.1f} s ({processor:.1f} s of processor time, one process), {memory:.2f} GB, {kept} kept")


if __name__ == "__main__":
    main()
