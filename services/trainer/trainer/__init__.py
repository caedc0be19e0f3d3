"""Prepare, SFT, merge and GRPO on Ray Train."""
