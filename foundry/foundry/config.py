"""A profile: the configs of the pipeline and of every service, read and checked together."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from evaluator.config import EvaluatorConfig
from inference_service.config import InferenceServiceConfig
from publisher.config import PublisherConfig
from qmd_schema.artifacts import sha256_file, sha256_json
from qmd_schema.config import StrictModel, load_config
from qmd_schema.errors import ConfigError
from reward_service.config import RewardServiceConfig
from trainer.config import GrpoConfig, PrepareConfig, SftConfig

PROFILES = {"cpu": Path("configs/cpu"), "gpu": Path("configs")}


class PipelineConfig(StrictModel):
    """One walk through all stages: data, SFT, GRPO, verdict, publication."""

    base_model: str = Field(description="Model reference that training starts from, and the gate's first opponent.")
    runs: Path = Field(Path("runs"), description="Folder of runs; each run is a folder of stages in it.")
    minimum_free_disk_gib: float = Field(ge=0, description="Free disk a run needs for weights and checkpoints, in GiB.")
    service_ready_seconds: float = Field(
        gt=0, description="Time a service may take until it answers, in seconds; vLLM loads its model in it."
    )


@dataclass(frozen=True)
class Profile:
    """Every config of one profile; `folder` is where they were read from, absolute."""

    name: str
    folder: Path
    pipeline: PipelineConfig
    prepare: PrepareConfig
    reward: RewardServiceConfig
    inference: InferenceServiceConfig
    evaluator: EvaluatorConfig
    publisher: PublisherConfig

    @property
    def ports(self) -> dict[str, int]:
        """The TCP port of each service."""
        return {
            "reward": self.reward.server.port,
            "inference": self.inference.port,
            "evaluator": self.evaluator.server.port,
            "publisher": self.publisher.server.port,
        }

    def address(self, service: str) -> str:
        return f"127.0.0.1:{self.ports[service]}"

    def config_file(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"

    @property
    def inputs_sha256(self) -> str:
        """One hash of all config files and of the training data."""
        files = [*sorted(self.folder.glob("*.yaml")), *sorted(self.prepare.data.glob("*.jsonl"))]
        hashes = {path.name: sha256_file(path) for path in files}
        for path in filter(Path.is_file, self.prepare.dictating_files):
            hashes[f"{path.parent.name}/{path.name}"] = sha256_file(path)
        return sha256_json(hashes)


def profile_folder(name: str) -> Path:
    """The folder of a profile's configs. Raises ConfigError for an unknown profile."""
    if name not in PROFILES:
        raise ConfigError(f"profile {name!r} is unknown; there are: {', '.join(PROFILES)}.")
    return PROFILES[name]


def load_profile(name: str) -> Profile:
    """Reads every config of a profile. Raises ConfigError for the first file that is wrong."""
    folder = profile_folder(name).resolve()
    load_config(folder / "sft.yaml", SftConfig)
    grpo = load_config(folder / "grpo.yaml", GrpoConfig)
    reward = load_config(folder / "reward.yaml", RewardServiceConfig)
    searched = {collection.path.resolve() for collection in reward.collections}
    if unsearched := [str(each.path) for each in grpo.collections if each.path.resolve() not in searched]:
        raise ConfigError(
            f"{folder / 'grpo.yaml'}: collections: the reward service does not search {', '.join(unsearched)}. "
            f"Name them in {folder / 'reward.yaml'} under `collections` as well, each with its `path`."
        )
    prepare = load_config(folder / "prepare.yaml", PrepareConfig)
    evaluator = load_config(folder / "evaluator.yaml", EvaluatorConfig)
    checked = {path.resolve() for path in (prepare.evals / "queries.jsonl", *prepare.judged)}
    within = (prepare.evals / "collections").resolve()
    judged = [evaluator.queries, *(collection.path / "queries.jsonl" for collection in evaluator.collections)]
    if unchecked := [
        str(path) for path in judged if path.resolve() not in checked and path.parent.parent.resolve() != within
    ]:
        raise ConfigError(
            f"{folder / 'evaluator.yaml'}: queries, collections: training data is not checked for queries of "
            f"{', '.join(unchecked)}. Name them in {folder / 'prepare.yaml'} under `judged`."
        )
    inference = load_config(folder / "inference.yaml", InferenceServiceConfig)
    if inference.policies == "adapter" and inference.max_adapter_rank < grpo.lora.rank:
        raise ConfigError(
            f"{folder / 'grpo.yaml'}: lora.rank: {grpo.lora.rank}: the inference service takes adapters of rank "
            f"{inference.max_adapter_rank} at most. Raise max_adapter_rank in {folder / 'inference.yaml'}."
        )
    if inference.policies == "adapter" and inference.max_adapters <= grpo.max_staleness:
        raise ConfigError(
            f"{folder / 'grpo.yaml'}: max_staleness: {grpo.max_staleness}: the inference service keeps "
            f"{inference.max_adapters} adapters. Raise max_adapters in {folder / 'inference.yaml'} to "
            f"{grpo.max_staleness + 1}."
        )
    return Profile(
        name=name,
        folder=folder,
        pipeline=load_config(folder / "pipeline.yaml", PipelineConfig),
        prepare=prepare,
        reward=reward,
        inference=inference,
        evaluator=evaluator,
        publisher=load_config(folder / "publisher.yaml", PublisherConfig),
    )
