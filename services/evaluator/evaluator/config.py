"""What the evaluator measures, where it keeps it, and what a candidate must show."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from qmd_rpc.server import ServerConfig
from qmd_schema.artifacts import sha256_json
from qmd_schema.config import CollectionConfig, StrictModel

_UNCHANGING = {
    "server",
    "inference_address",
    "gguf_inference_address",
    "inference_seconds",
    "inference_patience",
    "session_hours",
    "store",
    "signing_key",
    "search_cache",
}
"""Keys that say where things are and how long they may take, not what is measured."""


class RateMargins(StrictModel):
    """How far the candidate may exceed the deployed model, in shares (0 to 1); the upper bound is compared."""

    dropped_lines: float = Field(
        0.03, ge=0, description="Lines that QMD's filter drops: work of the model thrown away."
    )
    fallback: float = Field(
        0.02, ge=0, description="Queries that end in QMD's fallback: the model gave nothing usable."
    )
    lex_without_match: float = Field(
        0.10, ge=0, description="Lex lines that match no document. QMD ANDs a line's terms, so long lines find nothing."
    )
    entities_dropped: float = Field(0.05, ge=0, description="Named entities of the query that the expansion lost.")


class RateCeilings(StrictModel):
    """What no candidate may exceed, in shares (0 to 1), whatever it is compared with; the mean is compared."""

    dropped_lines: float = Field(0.10, ge=0, le=1, description="Lines that QMD's filter drops.")
    fallback: float = Field(0.02, ge=0, le=1, description="Queries that end in QMD's fallback.")
    cut: float = Field(0.02, ge=0, le=1, description="Answers cut at QMD's token limit: the model does not stop.")
    leaked: float = Field(0.0, ge=0, le=1, description="Answers with template or think tokens in them.")


class GateConfig(StrictModel):
    """What decides between PASS, FAIL and INCONCLUSIVE."""

    minimum_effect: float = Field(
        0.01, gt=0, description="Mean gain in nDCG@10 below which a new model is not worth shipping."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of every bound, one-sided.")
    resamples: int = Field(10_000, ge=1000, description="Draws of the bootstrap and of the permutation test.")
    seed: int = Field(0, ge=0, description="Of those draws, so that the same answers give the same verdict.")
    minimum_queries: int = Field(
        30, ge=2, description="Queries below which a slice warns and never decides, and a comparison never passes."
    )
    valid_outputs: float = Field(
        0.99,
        ge=0,
        le=1,
        description="Least Wilson lower bound of the share of ungrammared outputs that keep the rules.",
    )
    rubric_margin: float = Field(
        0.03,
        ge=0,
        description="Points of the rubric score (0 to 1) that the lower bound of its change may fall below 0.",
    )
    slice_margin: float = Field(
        0.10, ge=0, description="The same for one slice, which has fewer queries and so a wider interval."
    )
    collection_margin: float = Field(
        0.05, ge=0, description="nDCG@10 that the lower bound of one collection's gain may fall below 0."
    )
    rates: RateMargins = RateMargins()
    ceilings: RateCeilings = RateCeilings()
    tokens_ratio: float = Field(
        1.25, gt=0, description="Most mean tokens an expansion, as a multiple of the deployed model's."
    )
    latency_ratio: float = Field(1.25, gt=0, description="Most median seconds an expansion, as such a multiple.")
    size_ratio: float = Field(1.05, gt=0, description="Most bytes of weights, as such a multiple.")
    first_rubric: float = Field(
        0.75,
        ge=0,
        le=1,
        description="Least mean rubric score of a first deployment, which has no predecessor to match.",
    )


class EvaluatorConfig(StrictModel):
    """The evaluation service: generates with the inference service, measures, compares, decides."""

    server: ServerConfig = ServerConfig(port=8012)
    inference_address: str = Field("127.0.0.1:8011", description="host:port of the inference service.")
    gguf_inference_address: str = Field(
        "127.0.0.1:8014", description="host:port of the inference service that runs GGUF files; asked only about these."
    )
    inference_seconds: float = Field(
        1800.0, gt=0, description="Seconds one batch may take; a model that never stops writes 600 tokens an answer."
    )
    inference_patience: float = Field(
        60.0, ge=0, description="Seconds to wait for an inference service that does not answer, as while it restarts."
    )
    queries: Path = Field(
        description="Eval queries with their slices (JSONL): rubric and contract are measured on them."
    )
    queries_per_slice: int | None = Field(
        None,
        ge=2,
        description="Eval queries taken of each slice, always the same ones; null takes all. Bounds the time.",
    )
    collections: list[CollectionConfig] = Field(min_length=1, description="What retrieval is measured on.")
    queries_per_collection: int | None = Field(
        None, ge=2, description="Judged queries taken of each collection, likewise; more queries narrow the interval."
    )
    seeds: list[int] = Field(
        [1, 2, 3, 4], min_length=1, description="One answer a query and seed; a query counts with its mean over them."
    )
    ungrammared_seeds: int = Field(
        4,
        ge=1,
        description="The first seeds, which also answer the eval queries without grammar: do they keep the rules?",
    )
    base_seeds: int | None = Field(
        None,
        ge=1,
        description="The first seeds, which alone a base model answers with at a first deployment; null takes all. An "
        "untrained one writes most of the tokens, since it seldom stops, and is far behind: fewer answers of it leave "
        "time for more queries.",
    )
    batch_answers: int = Field(
        512,
        ge=1,
        description="Answers asked for at once and stored together: many keep the server full, few lose less.",
    )
    latency_queries: int = Field(
        40,
        ge=5,
        description="Eval queries asked one at a time to measure seconds an expansion, as a user waits for it.",
    )
    gate: GateConfig = GateConfig()
    session_hours: float = Field(
        24.0,
        gt=0,
        description="Hours in which the same comparison goes on, or answers again, from the store, and in which a "
        "model that was measured is compared with another without being asked again.",
    )
    store: Path = Field(Path("runs/evaluator.sqlite"), description="SQLite file of answers and verdicts.")
    signing_key: Path = Field(
        Path("runs/keys/verdict.key"), description="Ed25519 key (hex) that signs verdicts; made on first use."
    )
    search_cache: Path = Field(Path("runs/search"), description="Folder of search indexes and embeddings.")

    @model_validator(mode="after")
    def _seeds_fit(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed occurs twice; each stands for answers of its own")
        if self.ungrammared_seeds > len(self.seeds):
            raise ValueError(f"ungrammared_seeds: {self.ungrammared_seeds}, but there are {len(self.seeds)} seeds")
        return self

    def for_base(self) -> Self:
        """The config that a base model is measured with."""
        return self.model_copy(update={"seeds": self.seeds[: self.base_seeds]})

    def sha256(self) -> str:
        """The hash of what changes a measurement or a decision; addresses and places do not."""
        return sha256_json(self.model_dump(mode="json", exclude=_UNCHANGING))
