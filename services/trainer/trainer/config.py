"""The configs of the training stages: prepare, SFT, merge and GRPO."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from qmd_reward.composite import CompositeConfig
from qmd_schema.config import CollectionConfig, StrictModel

UNTRAINABLE_MODULES = ("lm_head", "embed_tokens")
"""Embeddings that SmolLM2 and Qwen3 tie; an adapter on one of them would untie them when merged."""


class CurationConfig(StrictModel):
    """What the rows of a training set have to reach, one by one and together: `foundry data lint` checks it."""

    rubric_minimum: float = Field(
        75.0, ge=0, le=100, description="Rubric percentage every row reaches: nothing worse is worth imitating."
    )
    rubric_mean: float = Field(95.0, ge=0, le=100, description="Mean rubric percentage of the set.")
    hyde_minimum: int = Field(80, ge=1, description="Characters of a hyde line; a shorter one holds too few facts.")
    hyde_maximum: int = Field(200, ge=1, description="Characters of a hyde line; a longer one wanders off the query.")
    minimum_lines: int = Field(
        2, ge=1, le=3, description="Lex lines and vec lines an answer has at least; the contract allows 3 of each."
    )
    lex_words: int = Field(
        3,
        ge=1,
        description="Words and quoted phrases of a lex line. QMD wants all of them in one document, so each more finds "
        "less; what a `-` negates is not counted.",
    )
    near_duplicate: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Jaccard index of character trigrams from which two queries of the set count as one.",
    )
    skeleton_repeats: int = Field(
        5, ge=1, description="Times a skeleton (a text with the query's words blanked) may occur: more is a template."
    )

    @model_validator(mode="after")
    def _hyde_range_is_one(self) -> "CurationConfig":
        if self.hyde_minimum > self.hyde_maximum:
            raise ValueError("hyde_minimum is more than hyde_maximum")
        return self


class PrepareConfig(StrictModel):
    """Training data: read, checked, split and rendered as QMD sends it."""

    model: str = Field(description="Model reference whose tokenizer gives the BOS and EOS text.")
    data: Path = Field(Path("data"), description="Folder of *.jsonl files with training examples.")
    evals: Path = Field(
        Path("evals"),
        description="Folder with queries.jsonl and collections/*/queries.jsonl, none of which may be trained on.",
    )
    judged: list[Path] = Field(
        [], description="Further files of queries to judge models on, as the queries.jsonl of a BEIR folder elsewhere."
    )
    dictation: list[CollectionConfig] = Field(
        [],
        description="BEIR folders with the split to learn from: their judged queries become further rows, with answers "
        "that the judged documents dictate, so that a model learns what the collections hold. Of the queries those are "
        "left out that models are judged on, or nearly.",
    )
    validation_share: float = Field(0.08, gt=0, lt=1, description="Share of each slice that is held out for the loss.")
    near_duplicate: float = Field(
        0.6,
        gt=0,
        le=1,
        description="Jaccard index of character trigrams from which a query counts as a leak of an evaluation query; "
        "0.6 finds rewordings of one request and lets pass two requests that share half their words.",
    )
    curation: CurationConfig = Field(
        CurationConfig(), description="What `foundry data lint` asks of the set; preparing does not."
    )
    seed: int = Field(0, ge=0, description="Seed of the split.")

    @property
    def dictating_files(self) -> list[Path]:
        """The files that dictated rows are made of."""
        return [path for collection in self.dictation for path in collection.files]


class LoraSettings(StrictModel):
    """The adapter that is trained; the base stays as it is."""

    rank: int = Field(ge=1, description="Rank of each update.")
    alpha: int = Field(ge=1, description="The update counts alpha / rank times.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapter, in training.")
    targets: list[str] = Field(min_length=1, description="Names of the linear layers that get an adapter.")

    @field_validator("targets")
    @classmethod
    def _embeddings_stay_tied(cls, value: list[str]) -> list[str]:
        for name in value:
            if name in UNTRAINABLE_MODULES:
                raise ValueError(f"{name} is tied to the embeddings; merging would untie it. Leave it out")
        return value


class RaySettings(StrictModel):
    """How a stage runs on Ray Train."""

    workers: int = Field(1, ge=1, description="Data-parallel workers.")
    sharding: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="ddp: each worker holds the whole base. fsdp: each holds its share of the base's layers and "
        "gathers one layer at a time (FSDP2): less memory, more traffic. The adapter is whole on each either way.",
    )
    gpu: bool = Field(False, description="One GPU a worker; else the CPU with gloo.")
    threads: int | None = Field(
        None, ge=1, description="Threads of a worker's matrix products. null: the machine's cores over the workers."
    )
    max_failures: int = Field(2, ge=0, description="Times a lost worker is started again from the last checkpoint.")
    checkpoints_kept: int = Field(2, ge=1, description="Checkpoints kept on disk, the newest ones.")

    @model_validator(mode="after")
    def _shards_need_workers(self) -> "RaySettings":
        if self.sharding == "fsdp" and self.workers == 1:
            raise ValueError("sharding: fsdp needs two or more workers")
        return self


class TrackedStage(StrictModel):
    """A stage that trains and reports its metrics."""

    trackers: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = Field(
        ["tensorboard"],
        description="Where metrics go besides progress.jsonl. Each but tensorboard is a package to install. All write "
        "into the stage's folder, unless the tracker's own environment variables name a server.",
    )


class FineTuningConfig(TrackedStage):
    """Supervised fine-tuning of an adapter; the loss is taken over the answer alone."""

    lora: LoraSettings
    ray: RaySettings
    epochs: float = Field(gt=0, description="Passes over the training rows.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps, in place of epochs.")
    batch: int = Field(ge=1, description="Rows an optimizer step, over all workers.")
    rows_per_forward: int = Field(ge=1, description="Rows a worker runs at once; less needs less memory.")
    learning_rate: float = Field(gt=0, description="Peak learning rate of AdamW.")
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="Course of the learning rate after the warm-up."
    )
    warmup_share: float = Field(0.03, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, on the adapter.")
    max_length: int = Field(
        512, ge=64, description="Tokens a row may have, prompt included; a longer one is an error, never cut."
    )
    save_steps: int = Field(ge=1, description="Optimizer steps between checkpoints: what a kill costs at most.")
    seed: int = Field(0, ge=0, description="Seed of the adapter, the order of rows and dropout.")

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch % (self.rows_per_forward * self.ray.workers):
            raise ValueError("batch must be a multiple of rows_per_forward x ray.workers")
        return self


class SftConfig(FineTuningConfig):
    """Supervised fine-tuning on prepared data."""

    model: str = Field(description="Model reference to train from.")
    prepare: Path = Field(description="Config that data is prepared with when no folder of prepared data is given.")
    dictated_copies: int = Field(
        3,
        ge=1,
        description="Times that a dictated row is trained on in an epoch: contents take longer to learn than the form.",
    )


class GrpoConfig(TrackedStage):
    """Group-relative policy optimization of an adapter: rollouts and rewards come from services."""

    prepare: Path = Field(description="Config that data is prepared with when no folder of prepared data is given.")
    collections: list[CollectionConfig] = Field(
        [],
        description="BEIR folders, such as `foundry data synth` writes, whose queries are trained on as well. The "
        "reward service has to name them too: it searches them.",
    )
    inference: str = Field("127.0.0.1:8011", description="Address of the inference service that writes completions.")
    reward: str = Field("127.0.0.1:8010", description="Address of the reward service that scores them.")
    reward_weights: CompositeConfig = Field(
        CompositeConfig(), description="How rubric, retrieval gain, contract and length make one reward."
    )
    lora: LoraSettings
    ray: RaySettings
    steps: int = Field(ge=1, description="Optimizer steps; each has fresh completions.")
    queries: int = Field(ge=1, description="Queries an optimizer step, over all workers.")
    generations: int = Field(ge=2, description="Completions per query; the group that advantages are normalised over.")
    rows_per_forward: int = Field(ge=1, description="Completions a worker runs at once; less needs less memory.")
    learning_rate: float = Field(gt=0, description="Peak learning rate of AdamW.")
    warmup_share: float = Field(0.0, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    kl_coefficient: float = Field(
        0.04, ge=0, description="Weight of KL(policy ‖ merged SFT model) per token. 0 needs no reference forward."
    )
    credit: Literal["answer", "line"] = Field(
        "answer",
        description="Who earns the retrieval gain. answer: all tokens of an answer alike, by its gain beside those of "
        "its group, as in GRPO. line: the tokens of each line, by what the search loses without it. Most lines change "
        "nothing, so this blames and praises those that do; advantages are then scaled over the whole step, not within "
        "a group.",
    )
    importance_cap: float = Field(
        2.0,
        ge=1,
        description="Upper bound of the per-token weight policy / sampler, which corrects for a sampler that is stale "
        "and for its arithmetic.",
    )
    max_staleness: int = Field(
        1,
        ge=0,
        le=1,
        description="Optimizer steps that the policy which writes a step's completions may lag behind. 1: they are "
        "written while the step before trains, and neither waits. 0: exactly on-policy, one after the other.",
    )
    groups_without_spread: Literal["keep", "skip", "resample"] = Field(
        "skip",
        description="What becomes of a query whose completions all earn the same, so that none has an advantage. keep: "
        "its tokens count in the loss's mean and in the KL. skip: they count in neither. resample: another query of "
        "the training set takes its place (dynamic sampling, arXiv 2503.14476, section 3.2), or it is skipped after "
        "`redraws`.",
    )
    redraws: int = Field(2, ge=1, description="Times that a step may draw other queries under `resample`.")
    missing_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of a step's completions that may be missing because a call for them failed after its "
        "retries. They are left out of advantages and loss; more of them fail the step.",
    )
    max_completion: int = Field(200, ge=16, description="Tokens a completion may have.")
    generation_seconds: float = Field(900.0, gt=0, description="Deadline of one step's rollouts, in seconds.")
    reward_seconds: float = Field(
        60.0, gt=0, description="Deadline of one call for a score, its retries included, in seconds."
    )
    save_steps: int = Field(ge=1, description="Optimizer steps between checkpoints: what a kill costs at most.")
    seed: int = Field(0, ge=0, description="Seed of the adapter, the order of queries and the rollouts.")

    @model_validator(mode="after")
    def _groups_stay_whole(self) -> "GrpoConfig":
        if self.queries % self.ray.workers:
            raise ValueError("queries must be a multiple of ray.workers, so that a group stays on one worker")
        if self.queries * self.generations % (self.rows_per_forward * self.ray.workers):
            raise ValueError("queries x generations must be a multiple of rows_per_forward x ray.workers")
        return self


class ImitationConfig(StrictModel):
    """Fine-tuning on what the search gains most from: a model's own answers (`rft`), or composed ones (`distill`)."""

    prepare: Path = Field(description="Config that says what models are judged on, which is never trained on.")
    collections: list[CollectionConfig] = Field(
        min_length=1,
        description="BEIR folders, such as `foundry data synth` writes, whose judged queries are learnt from. The "
        "reward service has to name them too: it searches them.",
    )
    inference: str = Field("127.0.0.1:8011", description="Address of the inference service that writes answers.")
    reward: str = Field("127.0.0.1:8010", description="Address of the reward service that searches with them.")
    queries: int | None = Field(
        None, ge=2, description="Judged queries learnt from at most, drawn over all collections. null: all."
    )
    samples: int = Field(
        ge=2, description="Answers to each query: those that the best is chosen of, and that lines are tried beside."
    )
    minimum_gain: float = Field(
        0.01,
        ge=0,
        description="Gain in nDCG@10 of the best answer over the mean of a query's answers below which `rft` learns "
        "nothing of it.",
    )
    gain_cap: float = Field(
        0.1,
        ge=0,
        description="Gain in nDCG@10 that counts at most when `distill` chooses a lex line: larger ones are luck.",
    )
    rarity_weight: float = Field(
        0.1,
        ge=0,
        description="What `distill` adds to the gain of a lex line for its words' rarity in the collection, at most: "
        "unlike luck, it can be learnt.",
    )
    rehearsal: float = Field(
        1.0, ge=0, description="Rows of the prepared data mixed in for each new one, so that the form is not forgotten."
    )
    validation_share: float = Field(
        0.08, gt=0, lt=1, description="Share of the new rows that is held out for the loss."
    )
    generation_seconds: float = Field(3600.0, gt=0, description="Deadline of the answers, in seconds.")
    reward_seconds: float = Field(60.0, gt=0, description="Deadline of one search, in seconds.")
    seed: int = Field(0, ge=0, description="Seed of the choice of queries, the answers and the split.")
    training: FineTuningConfig = Field(description="The fine-tuning on these rows.")


class MergeConfig(StrictModel):
    """An adapter merged into its base."""

    base: str = Field(description="Model reference the adapter was trained on.")
    adapter: Path = Field(description="Adapter folder.")
    tolerance: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="Total variation between the next-token distributions of base plus adapter in fp32 and of the "
        "saved bf16 model, mean over a prompt's tokens. Rounding weights to bf16 moves it by .004 to .006, an adapter "
        "that got lost by .4.",
    )
