"""Compare the models that a judge's server says it answered with to the one that was asked for.

heard = AnsweringModels("gpt-4o")
heard.add("gpt-4o-2024-08-06")      # a more exact version of the same name
heard.add("gpt-4o-mini")
heard.warning()                     # "gpt-4o was asked for, but answered by gpt-4o-mini (1 of 2 judgments)."
"""

from __future__ import annotations

import re
from collections import Counter

from gshf_release.evaluation.verdicts.reading import OTHER_MODEL, SEVERAL_MODELS

VERSION = re.compile(
    r"[-_@:.](v?\d{3,}[a-z]?|v\d+(\.\d+)*|\d{4}-\d{2}(-\d{2})?|\d{2}-\d{2,4}|(preview|exp)(-\d{2}-\d{2,4}|-\d{4})?)(-v\d+(:\d+)?)?"
)
"""What a name of a model gains when its version is said."""
NEWEST = re.compile(r"[-:]latest$")
MOST_NAMES = 4
"""That a message lists."""


class AnsweringModels:
    """Counts the judgments of one judge by the model that the server says made them."""

    def __init__(self, asked: str) -> None:
        """Begin with none.

        Args:
            asked: The model that is asked for.
        """
        self.asked = asked
        self.counts: Counter[str] = Counter()

    def add(self, answered: str, count: int = 1) -> None:
        """Count judgments; servers that do not name their model count under an empty name."""
        self.counts[answered] += count

    def doubt(self, answered: str) -> str:
        """Return what makes one doubt a judgment of this model, of `verdicts.reading.DOUBTS`."""
        if answered and not same_model(self.asked, answered):
            return OTHER_MODEL
        return SEVERAL_MODELS if answered and sum(1 for name in self.counts if name) > 1 else ""

    def warning(self) -> str:
        """Return a sentence if another model answered than was asked for, or several did; else nothing."""
        named = {name: count for name, count in self.counts.items() if name}
        others = {name: count for name, count in named.items() if not same_model(self.asked, name)}
        total = self.counts.total()
        if others:
            return (
                f"{self.asked} was asked for, but {_listed(others)} made {sum(others.values())} of {total} judgments."
            )
        if len(named) > 1:
            return f"{len(named)} versions of {self.asked} made the judgments: {_listed(named)}."
        return ""


def same_model(asked: str, answered: str) -> bool:
    """Return whether a server's name of a model is the one asked for, or that with its version said.

    Folders and providers before a slash do not count: `openai/gpt-4o` is `gpt-4o`. `gpt-4o-mini` is another model.
    """
    wanted, found = _bare(asked), _bare(answered)
    return wanted == found or (found.startswith(wanted) and VERSION.fullmatch(found[len(wanted) :]) is not None)


def _bare(name: str) -> str:
    return NEWEST.sub("", name.rstrip("/").rsplit("/", 1)[-1].lower())


def _listed(counts: dict[str, int]) -> str:
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(shown) - MOST_NAMES} more" if len(shown) > MOST_NAMES else ""
    return ", ".join(f"{name} ({count})" for name, count in shown[:MOST_NAMES]) + more
