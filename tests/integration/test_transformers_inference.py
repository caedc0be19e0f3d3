"""The inference service over transformers: what it is where vLLM does not run; the tests run in their order."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import InferenceClient, PolicyMismatch
from qmd_schema.contract import QMD_DECODE, Decode
from support.processes import wait_until
from support.serving import (
    PLAIN,
    PROMPTS,
    Service,
    answering,
    assert_grammar_holds,
    error_of_logprobs,
    logits_of,
    running_service,
    save_model,
)

TOLERANCE = 0.01
"""In nats, mean over tokens: both compute in single precision, in batches of another size."""


@pytest.fixture(scope="module")
def versions(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four models of one architecture."""
    folder = tmp_path_factory.mktemp("versions")
    return [save_model(folder / f"version-{seed}", tiny_llama, seed) for seed in range(4)]


@pytest.fixture(scope="module")
def service(
    root: Path, versions: list[Path], free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with running_service(
        root, folder, versions[0], free_port(), engine="transformers", dtype="float32", max_sequences=12
    ) as started:
        yield started


@pytest.fixture
def client(service: Service) -> Iterator[InferenceClient]:
    with InferenceClient(service.address, deadline=120) as connected:
        yield connected


@pytest.fixture(scope="module")
def tokenizer(versions: list[Path]) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(versions[0])


def exactly(folder: Path) -> torch.nn.Module:
    """The model in single precision, as the service computes it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_every_prompt_gets_its_samples_in_order(client: InferenceClient, tokenizer: PreTrainedTokenizerBase) -> None:
    finished: list[int] = []
    answers = client.generate(PROMPTS * 5, n=2, max_tokens=12, seed=0, on_done=finished.append)
    assert finished == list(range(1, 16))
    samples = [sample for samples in answers for sample in samples]
    assert len({sample.text for sample in samples}) > 25
    for sample in samples:
        assert sample.finish_reason == "length" and len(sample.token_ids) == 12 and sample.logprobs is None
        assert sample.text == tokenizer.decode(sample.token_ids, skip_special_tokens=True).rstrip("\ufffd")


def test_a_seed_gives_the_same_answer_again_whatever_is_asked_beside_it(client: InferenceClient) -> None:
    alone = [client.generate(PROMPTS[:1], max_tokens=12, seed=seed)[0][0].text for seed in (7, 7, 8)]
    assert alone[0] == alone[1] != alone[2]
    assert client.generate(PROMPTS, n=3, max_tokens=12, seed=7)[0][0].text == alone[0]


def test_the_grammar_holds(client: InferenceClient) -> None:
    assert_grammar_holds(client.generate(PROMPTS, n=6, max_tokens=40))


def test_plain_temperature_draws_from_the_models_softmax(
    client: InferenceClient, service: Service, tokenizer: PreTrainedTokenizerBase
) -> None:
    decode = Decode(temperature=0.5, top_k=0, top_p=1.0, presence_penalty=0.0)
    (samples,) = client.generate(PROMPTS[:1], n=1000, decode=decode, grammar=False, max_tokens=1, seed=1)
    expected = (logits_of(exactly(service.model), PROMPTS[0], [0], tokenizer)[0] / decode.temperature).softmax(-1)
    drawn = Counter(sample.token_ids[0] for sample in samples)
    likely = expected.topk(5)
    for token, probability in zip(likely.indices.tolist(), likely.values.tolist(), strict=True):
        assert drawn[token] / len(samples) == pytest.approx(probability, abs=0.06)


def test_the_model_it_started_with_answers_as_base(
    client: InferenceClient, service: Service, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert client.policy() == "base" and client.policy_kind() == "merged"
    answers = client.generate(PROMPTS, n=2, decode=PLAIN, max_tokens=8, logprobs=True, policy="base")
    assert error_of_logprobs(exactly(service.model), answers, tokenizer) < TOLERANCE


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
        assert error_of_logprobs(exactly(versions[version]), answers, tokenizer) < TOLERANCE
        assert error_of_logprobs(exactly(versions[version - 1]), answers, tokenizer) > 1


def test_a_version_is_not_switched_inside_an_answer(
    client: InferenceClient, service: Service, versions: list[Path], tokenizer: PreTrainedTokenizerBase
) -> None:
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(
            client.generate, PROMPTS, n=4, decode=PLAIN, max_tokens=200, logprobs=True, policy="policy-3"
        )
        wait_until(lambda: answering(service) == 12, 60)
        client.load_policy("policy-4", versions[1])
        assert error_of_logprobs(exactly(versions[3]), asked.result(), tokenizer) < TOLERANCE


def test_what_it_cannot_run_is_refused_and_the_old_policy_stays(client: InferenceClient, tmp_path: Path) -> None:
    before = client.policy()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    file = tmp_path / "model.gguf"
    file.touch()
    for path, problem in (
        (tmp_path, "transformers cannot load it"),
        (file, "is no model folder"),
        (tmp_path / "adapter", "takes merged weights alone"),
    ):
        with pytest.raises(ServiceError, match=problem):
            client.load_policy("policy-5", path)
    with pytest.raises(PolicyMismatch, match=f"policy policy-3 is not loaded, only {before}"):
        client.generate(PROMPTS, policy="policy-3")
    client.generate(PROMPTS, max_tokens=2, policy=before)


def test_a_prompt_that_leaves_no_room_is_refused(client: InferenceClient) -> None:
    with pytest.raises(ServiceError, match="leaves no room for 2000"):
        client.generate(PROMPTS, max_tokens=2000)
    assert client.generate(PROMPTS, max_tokens=2)
