"""An evaluator for one command: uses the running services, or starts and stops its own."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from evaluator.models import GGUF_SUFFIX
from foundry.config import Profile, load_profile
from foundry.pipeline import Client, answers
from foundry.progress import StageProgress
from foundry.services import module_command, service
from qmd_rpc.evaluation import EvaluationClient
from qmd_rpc.inference import InferenceClient
from qmd_schema.errors import ArtifactError
from trainer.base_models import resolve_model
from trainer.merge import merged_adapter


def measurable_model(reference: str) -> Path:
    """The merged folder or GGUF file of a model reference; an adapter's folder is merged into its base first.

    Raises ArtifactError for a reference that names no model.
    """
    path = Path(reference).expanduser().resolve()
    if path.suffix == GGUF_SUFFIX:
        if not path.is_file():
            raise ArtifactError(f"{reference}: no such GGUF file.")
        return path
    if (path / "adapter_config.json").is_file():
        return merged_adapter(path)
    return resolve_model(reference)


@contextmanager
def evaluation_client(profile_name: str, models: Sequence[Path], progress: StageProgress) -> Iterator[EvaluationClient]:
    """A client of a ready evaluator, with inference services that can load models like these."""
    profile = load_profile(profile_name)
    with ExitStack() as stack:
        folders = [model for model in models if model.suffix != GGUF_SUFFIX]
        files = [model for model in models if model.suffix == GGUF_SUFFIX]
        for name, addressed, chosen in (
            ("inference", profile.evaluator.inference_address, folders),
            ("gguf-inference", profile.evaluator.gguf_inference_address, files),
        ):
            if chosen:
                port = addressed.rpartition(":")[2]
                command = module_command("inference_service", "--model", str(chosen[0]), "--port", port)
                command += ["--config", str(profile.config_file("inference"))]
                start_unless_running(stack, profile, progress, name, InferenceClient(addressed, deadline=10), command)
        yield _evaluator(stack, profile, progress)


@contextmanager
def verdict_client(profile_name: str, progress: StageProgress) -> Iterator[EvaluationClient]:
    """A client of a ready evaluator that need not measure."""
    with ExitStack() as stack:
        yield _evaluator(stack, load_profile(profile_name), progress)


def _evaluator(stack: ExitStack, profile: Profile, progress: StageProgress) -> EvaluationClient:
    address = profile.address("evaluator")
    command = module_command("evaluator", "--config", str(profile.config_file("evaluator")))
    start_unless_running(stack, profile, progress, "evaluator", EvaluationClient(address, deadline=2), command)
    return stack.enter_context(EvaluationClient(address))


def start_unless_running(
    stack: ExitStack, profile: Profile, progress: StageProgress, name: str, client: Client, command: Sequence[str]
) -> None:
    """Starts a service that does not answer yet; it lives as long as the stack."""
    task = f"starting the {name} service"
    progress.update(task, 0, 1)
    if not answers(client):
        log, ready_seconds = profile.pipeline.runs / "logs" / f"{name}.log", profile.pipeline.service_ready_seconds
        stack.enter_context(service(command, log, partial(answers, client), ready_seconds))
    progress.update(task, 1, 1)
