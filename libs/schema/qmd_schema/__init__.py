"""What an example, an expansion, a prompt, a manifest and a verdict are."""
