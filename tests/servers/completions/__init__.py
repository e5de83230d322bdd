"""A server of completions with token ids, for tests."""

from tests.servers.completions.server import CompletionsServer

__all__ = ["CompletionsServer"]
