"""A replay judge server: real HTTP, stored or made-up judgments, faults on demand."""

from tests.servers.judge.batches import Batches
from tests.servers.judge.replies import Reply, by_rule, longer_wins, replay, stored_judgments
from tests.servers.judge.server import KEY, Fault, JudgeServer

__all__ = ["KEY", "Batches", "Fault", "JudgeServer", "Reply", "by_rule", "longer_wins", "replay", "stored_judgments"]
