"""Faults that a test orders in advance; each rule is used up by the requests it hits."""

from dataclasses import dataclass, field
from typing import Literal

FaultKind = Literal["fail", "lose_answer", "delay", "hold", "stale_parent", "corrupt"]


@dataclass(eq=False)
class Rule:
    """What happens to the next `times` requests of a route."""

    kind: FaultKind
    route: str
    times: int
    status: int | None = None
    seconds: float = 0.0
    message: str = ""
    held: bool = True


@dataclass
class Faults:
    """The rules in force. Routes go by the names given in `routes`, for example "commit" or "lfs_put"."""

    routes: frozenset[str] = frozenset()
    rules: list[Rule] = field(default_factory=list)

    def fail(self, route: str, times: int = 1, status: int = 503, message: str = "") -> None:
        """Refuses requests before the server does anything with them; `message` goes into header and body."""
        self._add(Rule("fail", route, times, status=status, message=message))

    def lose_answer(self, route: str = "commit", times: int = 1, status: int | None = None) -> None:
        """Does the work, then answers `status`, or without one cuts the connection after the headers.

        On "commit" this is the commit that landed unknown to its sender; on "cdn" a truncated download.
        """
        self._add(Rule("lose_answer", route, times, status=status))

    def delay(self, route: str, seconds: float, times: int = 1) -> None:
        """Waits before the work."""
        self._add(Rule("delay", route, times, seconds=seconds))

    def hold(self, route: str) -> Rule:
        """Waits before the work until the rule's `held` is taken back, so that a test can end the client in the middle."""
        self._add(Rule("hold", route, times=1))
        return self.rules[-1]

    def stale_parent(self, times: int = 1) -> None:
        """Lets somebody else's commit land just before the next one, which makes its parent stale: 412."""
        self._add(Rule("stale_parent", "commit", times))

    def corrupt(self, route: str, times: int = 1) -> None:
        """Changes one byte: on "commit" of what is stored of a file, on "cdn" and "resolve" of what is sent."""
        self._add(Rule("corrupt", route, times))

    def clear(self) -> None:
        """Drops all rules; what they hold or delay is refused at once."""
        for rule in self.rules:
            rule.held = False
        self.rules.clear()

    def take(self, kind: FaultKind, route: str) -> Rule | None:
        """The first rule that applies, with one use taken off it."""
        for rule in self.rules:
            if rule.kind == kind and rule.route == route and rule.times > 0:
                rule.times -= 1
                return rule
        return None

    def _add(self, rule: Rule) -> None:
        if rule.route not in self.routes:
            raise ValueError(f"no route is named {rule.route!r}; there are {', '.join(sorted(self.routes))}")
        self.rules.append(rule)
