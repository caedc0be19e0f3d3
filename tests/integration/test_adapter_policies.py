"""One real vLLM that takes a policy as an adapter; the tests run in their order."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import InferenceClient, PolicyMismatch
from qmd_schema.contract import QMD_DECODE
from support.processes import wait_until
from support.serving import (
    PLAIN,
    PROMPTS,
    TOLERANCE,
    Service,
    answering,
    error_of_logprobs,
    running_service,
    save_model,
)
from trainer.config import LoraSettings
from trainer.policies import push_policy, write_adapter
from trainer.sft import lora_config

pytestmark = pytest.mark.slow

MAX_ADAPTERS = 2


@pytest.fixture(scope="module")
def service(
    root: Path, tiny_llama: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    model = save_model(folder / "model", tiny_llama, seed=0)
    with running_service(
        root, folder, model, free_port(), policies="adapter", max_adapters=MAX_ADAPTERS, max_adapter_rank=8
    ) as started:
        yield started


@pytest.fixture
def client(service: Service) -> Iterator[InferenceClient]:
    with InferenceClient(service.address, deadline=120) as connected:
        yield connected


@pytest.fixture(scope="module")
def tokenizer(service: Service) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(service.model)


class Training:
    """An adapter in training on the served model: each update moves the policy far."""

    def __init__(self, model: Path, rank: int = 4) -> None:
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        settings = LoraSettings(rank=rank, alpha=2 * rank, targets=["q_proj", "v_proj", "o_proj", "down_proj"])
        self.model: Any = get_peft_model(base, lora_config(settings)).eval()
        self.accelerator = Accelerator(cpu=True)

    def update(self, seed: int) -> None:
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.15)


@pytest.fixture(scope="module")
def training(service: Service) -> Training:
    return Training(service.model)


def test_a_service_of_adapters_says_so(client: InferenceClient) -> None:
    assert client.policy_kind() == "adapter"
    assert client.policy() == "base"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_after_each_update_the_adapter_answers_with_the_trainers_logprobs(
    client: InferenceClient, training: Training, tokenizer: PreTrainedTokenizerBase, version: int
) -> None:
    training.update(version)
    push_policy(client, f"policy-{version}", training, tokenizer)
    assert client.policy() == f"policy-{version}"
    answered = [
        client.generate(
            PROMPTS,
            n=2,
            decode=decode,
            grammar=grammar,
            max_tokens=8,
            logprobs=True,
            seed=version,
            policy=f"policy-{version}",
        )
        for decode, grammar in ((PLAIN, False), (QMD_DECODE, True))
    ]
    assert max(error_of_logprobs(training.model, answers, tokenizer) for answers in answered) < TOLERANCE
    training.update(version - 1)
    assert min(error_of_logprobs(training.model, answers, tokenizer) for answers in answered) > 0.5


def test_versions_answer_side_by_side(
    client: InferenceClient, service: Service, training: Training, tokenizer: PreTrainedTokenizerBase
) -> None:
    with ThreadPoolExecutor() as threads:
        asked = {
            version: threads.submit(
                client.generate, PROMPTS, n=4, decode=PLAIN, max_tokens=16, logprobs=True, seed=0, policy=version
            )
            for version in ("base", "policy-2", "policy-3")
        }
    assert error_of_logprobs(service.model, asked["base"].result(), tokenizer) < TOLERANCE
    for version in (2, 3):
        training.update(version)
        assert error_of_logprobs(training.model, asked[f"policy-{version}"].result(), tokenizer) < TOLERANCE


def test_the_oldest_of_too_many_is_gone(client: InferenceClient) -> None:
    with pytest.raises(PolicyMismatch, match="policy policy-1 is not loaded, only base, policy-2, policy-3"):
        client.generate(PROMPTS, policy="policy-1")


def test_a_version_that_has_to_go_finishes_its_answers_first(
    client: InferenceClient, service: Service, training: Training, tokenizer: PreTrainedTokenizerBase
) -> None:
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(
            client.generate, PROMPTS, decode=PLAIN, max_tokens=100, logprobs=True, seed=0, policy="policy-2"
        )
        wait_until(lambda: answering(service) == len(PROMPTS), 60)
        for version in (5, 6):
            training.update(version)
            push_policy(client, f"policy-{version}", training, tokenizer)
        assert answering(service) == 0
    training.update(2)
    assert error_of_logprobs(training.model, asked.result(), tokenizer) < TOLERANCE


def test_other_weights_under_a_known_name_are_not_answered_from_the_prefix_cache(
    client: InferenceClient, training: Training, tokenizer: PreTrainedTokenizerBase
) -> None:
    client.generate(PROMPTS, max_tokens=2, policy="policy-6")
    training.update(7)
    push_policy(client, "policy-6", training, tokenizer)
    answers = client.generate(PROMPTS, n=2, decode=PLAIN, max_tokens=8, logprobs=True, seed=0, policy="policy-6")
    assert error_of_logprobs(training.model, answers, tokenizer) < TOLERANCE


def test_an_adapter_that_does_not_fit_is_refused_and_the_others_stay(
    client: InferenceClient, service: Service, training: Training, tiny_llama: Path, tmp_path: Path
) -> None:
    high = Training(service.model, rank=16)
    write_adapter(high, tmp_path / "high")
    other = Training(tiny_llama)
    write_adapter(other, tmp_path / "other")
    write_adapter(training, tmp_path / "cut")
    weights = tmp_path / "cut/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for name, problem in (("high", "rank"), ("other", "was trained on"), ("cut", "safetensors|header|Error")):
        with pytest.raises(ServiceError, match=problem):
            client.load_policy("policy-8", tmp_path / name)
    for version in ("policy-5", "policy-6", "base"):
        client.generate(PROMPTS, max_tokens=2, policy=version)


def test_a_whole_model_takes_the_place_of_all(
    client: InferenceClient,
    training: Training,
    tiny_llama: Path,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    model = save_model(tmp_path / "second", tiny_llama, seed=1)
    client.load_policy("second", model)
    answers = client.generate(PROMPTS, n=2, decode=PLAIN, max_tokens=8, logprobs=True, seed=0, policy="second")
    assert error_of_logprobs(model, answers, tokenizer) < TOLERANCE
    with pytest.raises(PolicyMismatch, match="only second"):
        client.generate(PROMPTS, policy="policy-6")
    with pytest.raises(ServiceError, match="load the adapter's first"):
        push_policy(client, "policy-8", training, tokenizer)
    on_second = Training(model)
    on_second.update(8)
    push_policy(client, "policy-8", on_second, tokenizer)
    answers = client.generate(PROMPTS, n=2, decode=PLAIN, max_tokens=8, logprobs=True, seed=0, policy="policy-8")
    assert error_of_logprobs(on_second.model, answers, tokenizer) < TOLERANCE
