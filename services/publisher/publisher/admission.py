"""What has to hold before anything is made: each rule that does not is a refusal with its reason."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from publisher.config import PublisherConfig, name_problem
from qmd_schema.artifacts import MANIFEST_NAME, Manifest, read_manifest, sha256_file, sha256_folder
from qmd_schema.errors import UserError
from qmd_schema.verdicts import Verdict, load_signing_key, public_key_hex, read_signed_verdict, verify

MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
REPORT_NAME = "report.html"


class RefusedError(UserError):
    """A publication that its verdict does not allow."""


@dataclass(frozen=True)
class Submission:
    """What is asked to be published; absolute paths on this machine."""

    verdict: Path
    """Signed verdict.json."""
    model: Path
    """Folder of the merged model that the verdict names."""
    adapters: dict[str, Path]
    """Adapter folders by repository suffix: "sft", "grpo"."""
    data_manifest: Path
    """manifest.json of the prepared training data."""
    evaluation: Path
    """Folder that holds the evaluation's report."""


def read_trusted_verdict(path: Path, config: PublisherConfig) -> Verdict:
    """The verdict in a file, if the configured key signed it. Raises ArtifactError otherwise."""
    return verify(read_signed_verdict(path), public_key_hex(load_signing_key(config.signing_key)))


def check_verdict(verdict: Verdict, config: PublisherConfig, deployed: str | None, now: datetime) -> None:
    """Raises RefusedError unless the verdict is a PASS, young enough, and against the revision deployed now."""
    if verdict.outcome != "PASS":
        raise RefusedError(f"verdict {verdict.id} is {verdict.outcome}, not PASS: {'; '.join(verdict.reasons)}")
    age = now - datetime.fromisoformat(verdict.created).astimezone(UTC)
    if age > timedelta(hours=config.maximum_verdict_age_hours):
        raise RefusedError(
            f"verdict {verdict.id} is {age.total_seconds() / 3600:.0f} hours old, at most "
            f"{config.maximum_verdict_age_hours:g} are allowed. Compare the models again."
        )
    compared = verdict.reference.revision if verdict.reference_kind == "deployed" else None
    if compared != deployed:
        raise RefusedError(
            f"verdict {verdict.id} compares with {compared or 'the base model'}, but {deployed or 'nothing'} is "
            "deployed. Compare the model with what is deployed."
        )


def check_submission(submission: Submission, config: PublisherConfig) -> Manifest:
    """Raises RefusedError unless all that belongs to a publication is there; returns the training data's manifest."""
    missing = [name for name in MODEL_FILES if not (submission.model / name).is_file()]
    if missing or not any(submission.model.glob("*.safetensors")):
        raise RefusedError(f"{submission.model}: not a model folder, {', '.join(missing) or '*.safetensors'} missing.")
    if not (submission.evaluation / REPORT_NAME).is_file():
        raise RefusedError(f"{submission.evaluation}: no {REPORT_NAME} there. Run the evaluation first.")
    for suffix, folder in submission.adapters.items():
        if problem := name_problem(suffix):
            raise RefusedError(f"adapter repository {config.name}-{suffix}: {problem}.")
        if suffix == "gguf":
            raise RefusedError(f"adapter repository {config.name}-{suffix}: that name is the GGUF files'.")
        if not (folder / "adapter_config.json").is_file():
            raise RefusedError(f"{folder}: not an adapter folder, adapter_config.json missing.")
    merged = read_manifest(submission.model)
    own = {sha256_folder(folder) for folder in submission.adapters.values()}
    if merged and own and merged.inputs.get("adapter") not in own:
        raise RefusedError(f"{submission.model}: was merged from another adapter than those given. Give its own ones.")
    return _check_data(submission.data_manifest)


def _check_data(path: Path) -> Manifest:
    manifest = read_manifest(path.parent) if path.name == MANIFEST_NAME else None
    if manifest is None:
        raise RefusedError(f"{path}: no manifest of the training data. Run `foundry data prepare`, then train on it.")
    for name, sha256 in manifest.outputs.items():
        file = path.parent / name
        if not file.is_file() or sha256_file(file) != sha256:
            raise RefusedError(f"{file}: missing, or changed since its manifest was written. Prepare the data again.")
    return manifest
