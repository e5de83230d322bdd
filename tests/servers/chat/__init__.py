"""A chat-completions server for tests."""

from tests.servers.chat.server import ChatServer, Fault, Received

__all__ = ["ChatServer", "Fault", "Received"]
