"""Asks servers that speak OpenAI's chat completions, and reads what they answer."""
