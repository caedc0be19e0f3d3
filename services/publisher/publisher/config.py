"""What the publisher ships, where to, and which verdicts it acts on."""

import re
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from publisher.licences import licence_problem
from qmd_rpc.security import is_loopback
from qmd_rpc.server import ServerConfig
from qmd_schema.config import CollectionConfig, StrictModel

Quantisation = Literal["bf16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(
    r"(v|ver|version|r|rev|release)?\d+(\.\d+)*(\.?(rc|alpha|beta|dev|post)\d*)?|(.*\.)?(v|ver|version|rev|release)\d.*",
    re.IGNORECASE,
)


def name_problem(name: str) -> str | None:
    """What keeps a name from being (part of) a repository's: odd characters, or a version: `v2`, `1.0.3`, `2024-06`.

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

    @field_validator("licence")
    @classmethod
    def _may_be_published(cls, value: str) -> str:
        return _publishable(value)


class HubConfig(StrictModel):
    """A registry on the Hugging Face Hub. HF_TOKEN gives the right to write."""

    endpoint: str | None = Field(
        None, description="Address of the hub; none is HF_ENDPOINT, or the public one. Plain http on loopback alone."
    )
    private: bool = Field(False, description="Makes repositories private that do not exist yet.")
    token_file: Path | None = Field(
        None, description="File with the token; none is HF_TOKEN, or the file that `hf auth login` leaves."
    )
    cache: Path = Field(
        Path("registry/.hub"), description="Folder for fetched and staged files, relative to the working directory."
    )
    answer_seconds: float = Field(
        60.0, gt=0, le=3600, description="Seconds without a byte after which a request counts as failed."
    )
    attempts: int = Field(
        5, ge=1, le=20, description="Times a request is made before a failure that may pass is reported."
    )
    longest_wait_seconds: float = Field(
        30.0, ge=0, le=600, description="Longest wait between attempts; from 1 s it doubles up to this, with jitter."
    )

    @field_validator("endpoint")
    @classmethod
    def _keeps_the_token_secret(cls, value: str | None) -> str | None:
        if value is None:
            return None
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("endpoint wants an address such as https://huggingface.co")
        if address.scheme == "http" and not is_loopback(address.hostname):
            raise ValueError("endpoint wants https: in plain http the token could be read on the way")
        return value.rstrip("/")


class Margins(StrictModel):
    """How far the answers of a quantised file may fall below those of bf16, on the mean.

    Answers are drawn, so the means of two files that are equally good differ; each margin is two to three standard
    errors of that difference at 32 answers, 16 of them judged. They catch a quantisation that breaks a model, not one
    that costs it a little; more answers allow narrower margins.
    """

    valid: float = Field(
        0.15, ge=0, le=1, description="Share of answers (0 to 1) that keep every rule of an expansion: 4 of 32."
    )
    rubric: float = Field(0.05, ge=0, le=1, description="Points of the rubric score (0 to 1).")
    gain: float = Field(0.09, ge=0, le=1, description="Gain in nDCG@10 over no expansion; it varies most.")


class ParityConfig(StrictModel):
    """What every GGUF file has to show before it becomes visible."""

    prompts: int = Field(32, ge=2, description="Queries whose prompts are compared token by token.")
    tolerance: float = Field(
        0.03,
        gt=0,
        le=1,
        description="Most total variation (0 to 1) between the next-token distributions of the bf16 file and of the "
        "model folder, mean over the tokens of the worst prompt. bf16 arithmetic alone moves a merged model by .006.",
    )
    queries: Path = Field(
        Path("evals/queries.jsonl"), description="JSONL file with a query a line: the prompts, and what is answered."
    )
    answers: int = Field(
        16,
        ge=1,
        description="Queries that every file answers, and as many of the collection: they are most of the time.",
    )
    collection: CollectionConfig | None = Field(
        None,
        description="What the gain in retrieval is measured on; without it that part is left out, as the card says.",
    )
    seed: int = Field(0, ge=0, description="Of the draws, so that the same files get the same answers.")
    margins: Margins = Margins()
    search_cache: Path = Field(Path("runs/search"), description="Folder of search indexes and embeddings.")


class PublisherConfig(StrictModel):
    """The publishing service."""

    server: ServerConfig = ServerConfig(port=8013)
    registry: Literal["local", "hub"] = Field(
        "local", description="Kind of registry: folders on this machine, or repositories on the Hugging Face Hub."
    )
    folder: Path = Field(
        Path("registry"), description="Folder of the local registry, relative to the working directory."
    )
    hub: HubConfig = Field(HubConfig(), description="Settings of a registry on the Hub.")
    namespace: str = Field(description="Owner of the repositories: the part of their names before the slash.")
    size: str = Field(description="Model size, the end of the repository's name, such as 135M.")
    base: BaseModelConfig = Field(description="The model that was fine-tuned.")
    data_licence: str = Field("mit", description="Licence identifier of the training data, which is published too.")
    quantisations: list[Quantisation] = Field(
        ["bf16", "Q8_0", "Q4_K_M"], description="GGUF files to make. The others are made from bf16, which is a must."
    )
    default_quantisation: Quantisation | None = Field(
        None,
        description="The file QMD is pointed at; null for the smallest one that holds every margin of `parity`. One "
        "that is named here and does not hold them stops the publication.",
    )
    parity: ParityConfig = ParityConfig()
    acceptance: Path = Field(
        Path("runs/qmd-acceptance/acceptance.json"),
        description="What `make qmd-acceptance` measured; the cards show it if it is about a file that is published.",
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

    @property
    def working_folder(self) -> Path:
        """Where a publication is put together: on the local registry's disk, or on that of the Hub's cache."""
        return self.hub.cache if self.registry == "hub" else self.folder

    @field_validator("data_licence")
    @classmethod
    def _may_be_published(cls, value: str) -> str:
        return _publishable(value)

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
        if self.default_quantisation not in (None, *self.quantisations):
            raise ValueError(f"default_quantisation {self.default_quantisation} is none of quantisations")
        return self


def _publishable(licence: str) -> str:
    if problem := licence_problem(licence):
        raise ValueError(problem)
    return licence
