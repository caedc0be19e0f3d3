"""The evaluation service on a GGUF file, with an inference service that dies.

The tests run in their order.
"""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qmd_rpc.channel import ServiceError
from qmd_rpc.evaluation import EvaluationClient
from qmd_rpc.v1.evaluation_pb2 import Progress
from support.evaluation import (
    ANSWERS,
    EvaluatorProcess,
    GgufInferenceProcess,
    convert_to_gguf,
    save_model,
    write_eval_set,
)


@pytest.fixture(scope="module")
def model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    save_model(folder / "model", tiny_llama, 2, ["lex: tomato leaves", "lex: frost alarm", "vec: tomato leaves"])
    return convert_to_gguf(folder / "model")


@pytest.fixture(scope="module")
def inference(root: Path, model: Path, free_port: Callable[[], int]) -> Iterator[GgufInferenceProcess]:
    service = GgufInferenceProcess(root, model, free_port())
    yield service
    service.kill()


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluatorProcess]:
    folder = tmp_path_factory.mktemp("evaluator")
    write_eval_set(folder)
    service = EvaluatorProcess(folder)
    yield service
    if service.process is not None:
        service.process.kill()
        service.process.wait()


def test_an_inference_service_that_dies_is_an_error_and_what_it_answered_is_kept(evaluator, inference, model):
    inference.start()
    evaluator.start(gguf_inference_address=inference.address, batch_answers=1)

    def kill(progress: Progress) -> None:
        if progress.task == "answers of the model" and progress.done >= 3:
            inference.kill()

    with EvaluationClient(evaluator.address, deadline=120) as client, pytest.raises(ServiceError, match="inference"):
        client.evaluate(model, kill)
    tasks: dict[str, list[int]] = {}
    inference.start()
    with EvaluationClient(evaluator.address, deadline=120) as client:
        result = client.evaluate(model, lambda p: tasks.setdefault(p.task, []).append(p.done))
    assert tasks.get("answers of the model", [ANSWERS])[0] >= 3
    assert result["engine"] == "llama.cpp"
    assert result["figures"]["model"]["weight_bytes"] == model.stat().st_size
    assert result["figures"]["model"]["leaked"] == 0
    assert result["figures"]["model"]["lex_without_match"] < 1


@pytest.mark.usefixtures("inference")
def test_a_full_disk_is_an_error_that_says_what_to_do_and_what_was_answered_is_kept(evaluator, model):
    """A limit on the size of files stands for the disk, as it fails the same writes."""
    other = model.with_name("other.gguf")
    other.write_bytes(model.read_bytes() + b"\0")
    assert evaluator.process is not None
    pid = evaluator.process.pid

    def fill(progress: Progress) -> None:
        if progress.task == "answers of the model" and progress.done >= 5:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    with EvaluationClient(evaluator.address, deadline=120) as client:
        with pytest.raises(ServiceError, match=r"could not keep what it measures\. Make room"):
            client.evaluate(other, fill)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        tasks: dict[str, list[int]] = {}
        client.evaluate(other, lambda p: tasks.setdefault(p.task, []).append(p.done))
    assert tasks.get("answers of the model", [ANSWERS])[0] >= 3


def test_the_same_request_is_answered_without_any_inference_service(evaluator, inference, model):
    with EvaluationClient(evaluator.address, deadline=120) as client:
        before = client.evaluate(model)
        signed = client.compare(model, model, "r1", evaluator.folder / "first")
        inference.kill()
        assert client.evaluate(model) == before
        assert client.compare(model, model, "r1", evaluator.folder / "second") == signed
        with pytest.raises(ServiceError, match=r"inference service at .*not reachable"):
            client.compare(model, model, "r2", evaluator.folder / "third")
    for name in ("verdict.json", "report.html", "figures.json", "samples.jsonl"):
        assert (evaluator.folder / "second" / name).read_text() == (evaluator.folder / "first" / name).read_text()
    assert (
        signed.verdict.outcome != "PASS" and "run by llama.cpp" in (evaluator.folder / "first/report.html").read_text()
    )
    assert not (evaluator.folder / "third").exists()
