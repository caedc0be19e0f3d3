"""The front door: the foundry command and the pipeline that walks the stages."""
