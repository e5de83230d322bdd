"""Releases go to the Hugging Face Hub from here, and come back to be verified."""
