"""Starts vLLM with a checked config and keeps it healthy."""
