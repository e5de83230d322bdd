"""Clients and servers that speak OpenAI's chat completions."""
