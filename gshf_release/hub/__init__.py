"""Publishes releases to the Hugging Face Hub, and downloads them to be verified."""
