"""The evaluation service with a real inference service behind it, on small random models; tests run in their order."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml

from evaluator.store import Store
from qmd_rpc.channel import ServiceError
from qmd_rpc.evaluation import EvaluationClient
from qmd_rpc.v1.evaluation_pb2 import Progress
from qmd_schema.verdicts import SignedVerdict, load_signing_key, public_key_hex, read_signed_verdict, verify
from support.evaluation import (
    ANSWERS,
    QUERIES,
    EvaluatorProcess,
    GgufInferenceProcess,
    convert_to_gguf,
    pick_port,
    save_model,
    write_eval_set,
)


@pytest.fixture(scope="module")
def models(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of one architecture, three that write lines of two words and a broken one, and one of another."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "base", tiny_llama, 2, ["lex: of the", "vec: of the"])
    save_model(folder / "candidate", tiny_llama, 2, ["lex: tomato leaves", "lex: frost alarm", "vec: tomato leaves"])
    save_model(folder / "newcomer", tiny_llama, 2, ["lex: frost alarm", "vec: of the"])
    save_model(folder / "deeper", tiny_llama, 3, ["lex: of the"])
    save_model(folder / "broken", tiny_llama, 2, ["lex: of the"], weight=float("nan"))
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def inference(root: Path, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("inference")
    port = pick_port()
    values = yaml.safe_load((root / "configs/cpu/inference.yaml").read_text())
    (folder / "inference.yaml").write_text(
        yaml.safe_dump(values | {"port": port, "max_sequences": 32, "kv_cache_gib": 0.25})
    )
    command = [sys.executable, "-m", "inference_service", "--config", str(folder / "inference.yaml")]
    command += ["--model", str(models["base"]), "--log", str(folder / "vllm.log")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline(), (folder / "vllm.log").read_text()[-3000:]
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluator's working directory: an eval set, and what it keeps."""
    folder = tmp_path_factory.mktemp("evaluator")
    write_eval_set(folder)
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[EvaluatorProcess]:
    running = EvaluatorProcess(folder)
    yield running
    if running.process is not None:
        running.process.kill()
        running.process.wait()


@pytest.fixture
def client(service: EvaluatorProcess) -> Iterator[EvaluationClient]:
    with EvaluationClient(service.address, deadline=300) as connected:
        yield connected


def test_a_call_without_inference_service_names_that_service_and_leaves_no_verdict(service, client, models, tmp_path):
    service.start("127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"inference service at 127\.0\.0\.1:1: not reachable") as caught:
        client.compare(models["candidate"], models["base"], None, tmp_path / "out")
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert time.monotonic() - began < 30
    assert client.list_verdicts() == [] and not (tmp_path / "out").exists()
    assert service.end(signal.SIGTERM) == 0


def test_a_first_comparison_that_was_killed_goes_on_where_it_was(service, inference, models, folder):
    output = folder / "evaluate"
    for task, done in (("answers of the candidate", 7), ("latency of the candidate", 2), ("measures of the base", 1)):

        def kill(progress: Progress, task: str = task, done: int = done) -> None:
            if progress.task.startswith(task) and progress.done >= done:
                service.end(signal.SIGKILL)

        service.start(inference)
        with pytest.raises(ServiceError), EvaluationClient(service.address) as killed:
            killed.compare(models["candidate"], models["base"], None, output, kill)
        assert not output.exists()

    service.start(inference)
    tasks: dict[str, list[int]] = {}
    with EvaluationClient(service.address) as again:
        signed = again.compare(
            models["candidate"], models["base"], None, output, lambda p: tasks.setdefault(p.task, []).append(p.done)
        )
    assert "answers of the candidate" not in tasks and "answers of the base model" not in tasks
    verdict = verify(signed, public_key_hex(load_signing_key(folder / "verdict.key")))
    assert verdict.outcome in ("FAIL", "INCONCLUSIVE") and verdict.reference_kind == "base"
    assert read_signed_verdict(output / "verdict.json") == signed
    assert verdict.outcome in (output / "report.html").read_text()
    assert json.loads((output / "figures.json").read_text()) == verdict.figures
    samples = [json.loads(line) for line in (output / "samples.jsonl").read_text().splitlines()]
    assert sum(sample["side"] == "reference" for sample in samples) == ANSWERS // 2  # one seed of two
    assert sum(sample["side"] == "candidate" for sample in samples) == ANSWERS + len(QUERIES)
    assert "latency_p50" not in verdict.figures["reference"]


def test_the_same_comparison_is_answered_from_the_store(client, models, folder):
    before = read_signed_verdict(folder / "evaluate" / "verdict.json")
    tasks = set()
    signed = client.compare(models["candidate"], models["base"], None, folder / "again", lambda p: tasks.add(p.task))
    assert signed == before
    assert not any(task.startswith("answers") for task in tasks)
    assert (folder / "again" / "report.html").is_file()


def test_a_deployed_model_against_itself_has_a_verdict_of_its_own_and_does_not_pass(client, models, folder):
    signed = client.compare(models["base"], models["base"], "r1", folder / "itself")
    verdict = signed.verdict
    assert verdict.outcome != "PASS"
    assert verdict.reference.revision == "r1" and verdict.reference_kind == "deployed"
    assert verdict.gains["over reference"].mean == 0 and verdict.p_value == 1
    assert {"tokens, ratio", "latency, ratio", "size, ratio"} <= {guard.name for guard in verdict.guards}
    ids = {row.id for row in Store(folder / "store.sqlite").verdicts(10)}
    assert len(ids) == 2 and verdict.id in ids


def test_a_side_that_was_measured_is_not_asked_again_for_another_comparison(client, models, folder):
    tasks = set()
    signed = client.compare(models["base"], models["candidate"], "r2", folder / "turned", lambda p: tasks.add(p.task))
    assert not any(task.startswith(("answers", "latency")) for task in tasks)
    before = read_signed_verdict(folder / "evaluate" / "verdict.json").verdict.figures
    assert signed.verdict.figures["reference"] == before["candidate"]


def test_verdicts_are_listed_newest_first_and_found_by_id(client, folder):
    listed = client.list_verdicts()
    assert [row.outcome for row in client.list_verdicts(1)] == [listed[0].outcome]
    assert [row.created for row in listed] == sorted((row.created for row in listed), reverse=True)
    kept = {row.id: client.get_verdict(row.id) for row in listed}
    on_disk = SignedVerdict.model_validate_json((folder / "itself" / "verdict.json").read_text())
    assert kept[on_disk.verdict.id] == on_disk
    with pytest.raises(ServiceError) as caught:
        client.get_verdict("nothing")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_a_model_whose_weights_are_not_numbers_is_measured_and_fails(client, models, tmp_path):
    signed = client.compare(models["broken"], models["base"], None, tmp_path / "out")
    assert signed.verdict.outcome == "FAIL"
    assert signed.verdict.figures["candidate"]["fallback"] == 1.0


def test_bad_models_are_refused_with_what_is_wrong_and_no_verdict(client, models, tmp_path):
    verdicts = len(client.list_verdicts())
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((models["base"] / name).read_bytes())
    for candidate, problem in (
        (bare, "no tokenizer.json"),
        (models["deeper"], "does not load it"),
        (tmp_path / "none", "no config.json"),
    ):
        with pytest.raises(ServiceError, match=problem) as caught:
            client.compare(candidate, models["base"], None, tmp_path / "out")
        assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert len(client.list_verdicts()) == verdicts and not (tmp_path / "out").exists()


def test_a_second_evaluation_is_refused_while_one_runs_and_a_stop_ends_that_within_seconds(
    service, client, models, folder
):
    began: list[float] = []

    def interfere(progress: Progress) -> None:
        if progress.task != "answers of the candidate" or began:
            return
        with EvaluationClient(service.address) as second, pytest.raises(ServiceError, match="another") as caught:
            second.evaluate(models["base"])
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        began.append(time.monotonic())
        assert service.end(signal.SIGTERM) == 0

    with pytest.raises(ServiceError):
        client.compare(models["newcomer"], models["base"], "r1", folder / "stopped", interfere)
    assert time.monotonic() - began[0] < 15
    assert not (folder / "stopped").exists()


def test_both_engines_answer_the_same_from_the_same_weights_and_the_report_says_so(
    root, service, client, inference, models, tmp_path
):
    file = convert_to_gguf(models["candidate"])
    llama = GgufInferenceProcess(root, file, pick_port())
    llama.start()
    try:
        service.start(inference, gguf_inference_address=llama.address)
        client.compare(models["candidate"], file, "r1", tmp_path / "out")
    finally:
        llama.kill()
    answers: dict[str, dict[tuple[str, int, bool], str]] = {"candidate": {}, "reference": {}}
    for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        answers[sample["side"]][sample["key"], sample["seed"], sample["grammar"]] = sample["answer"]
    assert answers["candidate"] == answers["reference"]
    assert len(answers["candidate"]) == ANSWERS + len(QUERIES) and len(set(answers["candidate"].values())) > 5
    report = (tmp_path / "out" / "report.html").read_text()
    engines = report.split("<h3>vLLM against llama.cpp</h3>")[1].split("</table>")[0]
    assert engines.count('<td class="yes">yes</td>') == 2
