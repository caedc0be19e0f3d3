"""PublishingService: GGUF, parity, model card, atomic push, rollback."""
