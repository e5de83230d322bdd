"""A small fake Hugging Face Hub over real HTTP, for tests with the real client."""

from tests.servers.hub.server import HubServer

__all__ = ["HubServer"]
