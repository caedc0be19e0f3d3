"""The config of the reward service."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from qmd_rpc.server import ServerConfig
from qmd_schema.config import CollectionConfig, StrictModel


class RewardServiceConfig(StrictModel):
    """The reward service. The rubric that it scores with has no settings."""

    server: ServerConfig = Field(description="Where it listens, and its limits.")
    workers: int = Field(
        2,
        ge=0,
        description="Processes that score batches, streams and long expansions, 30 MiB each; more than the machine has "
        "cores gain nothing. With 0 or 1 a batch is scored at two thirds of the speed that 2 have on two cores.",
    )
    collections: list[CollectionConfig] = Field(
        [],
        description="Collections that ScoreRetrieval searches, never with judgements of an evaluation. They take a "
        "process more, with MiniLM in it, 600 MiB.",
    )
    cache: Path | None = Field(
        None, description="Folder that keeps the collections' indexes between starts; default: ~/.cache/qmd-foundry."
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [collection.name for collection in self.collections]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"collections: {', '.join(sorted(twice))}: a name occurs twice; folders' names must differ"
            )
        return self
