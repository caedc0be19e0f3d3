"""One real vLLM on a small random model; the tests run in their order, and the last one kills it."""

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from inference_service.sampling import penalty_window, subtract_presence_penalty
from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import InferenceClient, PolicyMismatch
from qmd_schema.contract import QMD_DECODE, Decode, prompt_text
from support.processes import all_ended, command_line, descendants, wait_until
from support.serving import (
    PLAIN,
    PROMPTS,
    TOLERANCE,
    Service,
    answering,
    assert_grammar_holds,
    command,
    error_of_logprobs,
    logits_of,
    running_service,
    save_model,
)


@pytest.fixture(scope="module")
def versions(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four models of one architecture."""
    folder = tmp_path_factory.mktemp("versions")
    return [save_model(folder / f"version-{seed}", tiny_llama, seed) for seed in range(4)]


@pytest.fixture(scope="module")
def tokenizer(versions: list[Path]) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(versions[0])


@pytest.fixture(scope="module")
def service(
    root: Path, versions: list[Path], free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with running_service(root, tmp_path_factory.mktemp("service"), versions[0], free_port()) as started:
        yield started


@pytest.fixture
def client(service: Service) -> Iterator[InferenceClient]:
    with InferenceClient(service.address, deadline=120) as connected:
        yield connected


def test_every_prompt_gets_its_samples_in_order(client: InferenceClient, tokenizer: PreTrainedTokenizerBase) -> None:
    finished: list[int] = []
    answers = client.generate(PROMPTS, n=4, max_tokens=12, seed=0, on_done=finished.append)
    assert [len(samples) for samples in answers] == [4, 4, 4]
    assert finished == [1, 2, 3]
    for sample in (sample for samples in answers for sample in samples):
        assert sample.finish_reason == "length" and len(sample.token_ids) == 12 and sample.logprobs is None
        # vLLM holds the bytes of a character that is not whole yet back.
        assert sample.text == tokenizer.decode(sample.token_ids, skip_special_tokens=True).rstrip("\ufffd")


def test_a_seed_gives_the_same_answer_again_and_each_sample_its_own(client: InferenceClient) -> None:
    # One answer at a time, since bfloat16 rounds differently in batches of another size.
    alone = [client.generate([PROMPTS[0]], max_tokens=12, seed=seed)[0][0].text for seed in (7, 7, 8)]
    assert alone[0] == alone[1] != alone[2]
    together = client.generate([PROMPTS[0]] * 2, n=3, max_tokens=12, seed=7)
    assert len({sample.text for samples in together for sample in samples}) == 6


def test_the_grammar_holds(client: InferenceClient) -> None:
    assert_grammar_holds(client.generate(PROMPTS, n=8, max_tokens=40))


def test_tokens_come_as_often_as_qmd_draws_them(
    client: InferenceClient, service: Service, tokenizer: PreTrainedTokenizerBase
) -> None:
    decode = Decode(temperature=0.7, top_k=8, top_p=0.8, presence_penalty=3.0)
    (samples,) = client.generate([PROMPTS[0]], n=2000, decode=decode, grammar=False, max_tokens=2, seed=1)
    ((first, _),) = Counter(sample.token_ids[0] for sample in samples).most_common(1)
    seconds = [sample.token_ids[1] for sample in samples if sample.token_ids[0] == first]
    logits = logits_of(AutoModelForCausalLM.from_pretrained(service.model), PROMPTS[0], [first, first], tokenizer)[1:]
    subtract_presence_penalty(logits, [penalty_window([first], decode, newline=198)], decode.presence_penalty)
    values, tokens = logits[0].topk(decode.top_k)
    probabilities = values.softmax(-1)
    kept = probabilities.cumsum(-1) - probabilities < decode.top_p
    expected = (values[kept] / decode.temperature).softmax(-1)
    drawn = torch.tensor([seconds.count(token) / len(seconds) for token in tokens[kept].tolist()])
    assert set(seconds) <= set(tokens.tolist())
    assert (drawn - expected).abs().sum() / 2 < 0.1


def test_the_model_it_started_with_answers_as_base(
    client: InferenceClient, service: Service, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert client.policy() == "base"
    answers = client.generate(PROMPTS, n=2, decode=PLAIN, max_tokens=8, logprobs=True, policy="base")
    assert error_of_logprobs(service.model, answers, tokenizer) < TOLERANCE


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_loaded_version_answers_with_the_trainers_logprobs(
    client: InferenceClient, versions: list[Path], tokenizer: PreTrainedTokenizerBase, version: int
) -> None:
    client.load_policy(f"policy-{version}", versions[version])
    assert client.policy() == f"policy-{version}"
    for decode, grammar in ((PLAIN, False), (QMD_DECODE, True)):
        answers = client.generate(
            PROMPTS, n=2, decode=decode, grammar=grammar, max_tokens=8, logprobs=True, policy=f"policy-{version}"
        )
        assert error_of_logprobs(versions[version], answers, tokenizer) < TOLERANCE
        assert error_of_logprobs(versions[version - 1], answers, tokenizer) > 1


def test_a_version_that_is_not_loaded_is_refused(client: InferenceClient) -> None:
    with pytest.raises(PolicyMismatch, match="policy policy-2 is not loaded, only policy-3"):
        client.generate(PROMPTS, policy="policy-2")


def test_weights_that_do_not_fit_are_refused_and_the_old_policy_stays(
    client: InferenceClient, tiny_llama: Path, tmp_path: Path
) -> None:
    wider = save_model(tmp_path / "wider", tiny_llama, seed=4, num_key_value_heads=2)
    with pytest.raises(ServiceError, match=r"model\.layers\.0\.self_attn\.k_proj\.weight is 64×64, .* is 32×64"):
        client.load_policy("policy-4", wider)
    with pytest.raises(ServiceError, match="cannot be read"):
        client.load_policy("policy-4", tmp_path)
    assert client.policy() == "policy-3"
    client.generate(PROMPTS, max_tokens=2, policy="policy-3")


def test_as_many_completions_may_be_missing_as_the_call_allows(client: InferenceClient) -> None:
    too_long = prompt_text("tea " * 2000, "<|im_start|>")
    answers = client.generate([PROMPTS[0], too_long, PROMPTS[1]], n=2, max_tokens=2, missing=2)
    assert [len(samples) for samples in answers] == [2, 0, 2]
    with pytest.raises(ServiceError, match="maximum context length"):
        client.generate([PROMPTS[0], too_long, PROMPTS[1]], n=2, max_tokens=2, missing=1)


def test_a_version_is_not_switched_inside_an_answer(
    service: Service, client: InferenceClient, versions: list[Path], tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = PROMPTS[:1]
    wait_until(lambda: answering(service) == 0, 60)  # a stopped engine does not end what callers gave up
    with ThreadPoolExecutor() as threads, stopped(engine_worker(service)):
        answer = threads.submit(client.generate, prompts, decode=PLAIN, max_tokens=60, logprobs=True, seed=1)
        wait_until(lambda: answering(service) == 1, 60)
        load = threads.submit(client.load_policy, "policy-4", versions[1])
        with pytest.raises(TimeoutError):
            load.result(timeout=1)
        assert client.policy() == "policy-3"
        os.kill(engine_worker(service), signal.SIGCONT)
        load.result()
        assert client.policy() == "policy-4"
        assert error_of_logprobs(versions[3], answer.result(), tokenizer, prompts) < TOLERANCE


def test_a_broken_engine_is_started_again_and_waited_for(
    client: InferenceClient, service: Service, versions: list[Path]
) -> None:
    client.load_policy("policy-4", versions[1])
    os.kill(engine_worker(service), signal.SIGKILL)
    with pytest.raises(PolicyMismatch, match="policy policy-4 is not loaded, only base"):
        client.generate(PROMPTS, max_tokens=2, policy="policy-4")
    client.load_policy("policy-4", versions[1])
    client.generate(PROMPTS, max_tokens=2, policy="policy-4")


def test_a_second_service_on_the_same_port_is_refused(service: Service) -> None:
    second = subprocess.run(
        command(service.config, "--model", str(service.model)), capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 2
    assert second.stderr.startswith(f"port {service.address.split(':')[1]} on 127.0.0.1 is in use")


def test_a_server_that_is_not_ready_in_time_is_ended(
    service: Service, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    config = tmp_path / "inference.yaml"
    config.write_text(service.config.read_text() + "ready_seconds: 4\n")
    port = free_port()
    arguments = ["--model", str(service.model), "--port", str(port), "--log", str(tmp_path / "vllm.log")]
    started = subprocess.run(command(config, *arguments), capture_output=True, text=True, timeout=60)
    assert started.returncode == 1
    assert f"127.0.0.1:{port} did not become ready within 4 s; last line: " in started.stderr


def test_nothing_outlives_a_service_that_was_killed(client: InferenceClient, service: Service) -> None:
    client.generate(PROMPTS[:1], max_tokens=2)
    family = descendants(service.process.pid)
    assert len(family) >= 4
    service.process.send_signal(signal.SIGKILL)
    service.process.wait()
    all_ended(family)


def engine_worker(service: Service) -> int:
    """The process of the engine that runs the model."""
    (worker,) = (process for process in descendants(service.process.pid) if "VLLM::Worker" in command_line(process))
    return worker


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """The process does nothing until it is continued, at the latest after the block."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)
