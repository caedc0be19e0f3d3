"""What the publisher ships, where to, and which verdicts it acts on."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from qmd_rpc.server import ServerConfig
from qmd_schema.config import StrictModel

Quantisation = Literal["bf16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"(v|ver|version|r|rev)?\d+([._]\d+)*", re.IGNORECASE)


def name_problem(name: str) -> str | None:
    """What keeps a name from being (part of) a repository's: odd characters, or a version such as `v2` or `1.0.3`.

    A size such as `1.7B` is no version. Repositories are updated in place, so that users always find the newest.
    """
    if not _NAME.fullmatch(name):
        return f"{name!r} wants letters, digits, '.', '_' and '-', a letter or digit first"
    for part in re.split("[-_]", name):
        if _VERSION.fullmatch(part):
            return f"{name!r} holds the version {part!r}; repositories are updated in place, leave it out"
    return None


class BaseModelConfig(StrictModel):
    """The model that was fine-tuned, for the cards."""

    name: str = Field(description="Its repository on the Hugging Face Hub.")
    licence: str = Field(description="Licence identifier as the Hub writes it; the published model carries it on.")
    attribution: str = Field(description="The sentence that its licence and courtesy ask for.")


class PublisherConfig(StrictModel):
    """The publishing service."""

    server: ServerConfig = ServerConfig(port=8013)
    registry: Literal["local"] = Field("local", description="Kind of registry: folders on this machine.")
    folder: Path = Field(
        Path("registry"), description="Folder of the local registry, relative to the working directory."
    )
    namespace: str = Field(description="Owner of the repositories: the part of their names before the slash.")
    size: str = Field(description="Model size, the end of the repository's name, such as 135M.")
    base: BaseModelConfig = Field(description="The model that was fine-tuned.")
    data_licence: str = Field("mit", description="Licence identifier of the training data, which is published too.")
    quantisations: list[Quantisation] = Field(
        ["bf16", "Q8_0", "Q4_K_M"], description="GGUF files to make. The others are made from bf16, which is a must."
    )
    default_quantisation: Quantisation = Field(
        "Q8_0", description="The file QMD is pointed at: at 8 bits a weight half the size of bf16, and faster."
    )
    signing_key: Path = Field(
        Path("runs/keys/verdict.key"),
        description="Ed25519 key file of the evaluator; only verdicts signed with it are acted on. Made on first use.",
    )
    maximum_verdict_age_hours: float = Field(
        72.0, gt=0, description="Hours after which a verdict no longer speaks for its model, and is to be asked again."
    )
    step_seconds: float = Field(
        3600.0, gt=0, description="Seconds one conversion, quantisation or question may take before it is ended."
    )

    @property
    def name(self) -> str:
        return f"qmd-query-expansion-{self.size}"

    @property
    def data_name(self) -> str:
        """The repository of the training data, which models of every size share."""
        return "qmd-query-expansion-train"

    @property
    def repository(self) -> str:
        return f"{self.namespace}/{self.name}"

    @field_validator("namespace", "size")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if problem := name_problem(value):
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _quantisations_fit(self) -> Self:
        if "bf16" not in self.quantisations or len(set(self.quantisations)) < len(self.quantisations):
            raise ValueError("quantisations wants bf16 among them, and none twice")
        if self.default_quantisation not in self.quantisations:
            raise ValueError(f"default_quantisation {self.default_quantisation} is none of quantisations")
        return self
