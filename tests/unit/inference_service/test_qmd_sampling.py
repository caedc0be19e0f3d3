import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from qmd_rpc.inference import DECODE_ARGUMENT, GRAMMAR_ARGUMENT
from qmd_schema.contract import QMD_DECODE, Decode

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams

    from inference_service.qmd_sampling import QmdSampling

PLAIN = Decode(temperature=1.0, top_k=0, top_p=1.0, presence_penalty=0.0)
COLD = Decode(temperature=0.0, top_k=0, top_p=1.0, presence_penalty=0.0)


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.fixture(scope="module")
def config(tiny_llama: Path) -> "VllmConfig":
    from vllm.config import DeviceConfig, ModelConfig, VllmConfig

    model = ModelConfig(model=str(tiny_llama), dtype="float32")
    return VllmConfig(model_config=model, device_config=DeviceConfig("cpu"))


@pytest.fixture
def sampling(config: "VllmConfig") -> "QmdSampling":
    from inference_service.qmd_sampling import QmdSampling

    return QmdSampling(config, torch.device("cpu"), is_pin_memory=False)


def request(decode: Decode, grammar: bool = False, seed: int = 0) -> "SamplingParams":
    from vllm.sampling_params import SamplingParams

    arguments = {DECODE_ARGUMENT: json.dumps(asdict(decode)), GRAMMAR_ARGUMENT: int(grammar)}
    return SamplingParams(temperature=0.0, seed=seed, extra_args=arguments)


def start(sampling: "QmdSampling", *requests: "SamplingParams") -> list[list[int]]:
    """Puts requests into an empty batch; returns their answers, which the caller lets grow."""
    from vllm.v1.sample.logits_processor import BatchUpdate

    answers: list[list[int]] = [[] for _ in requests]
    added = [(index, params, [], answers[index]) for index, params in enumerate(requests)]
    sampling.update_state(BatchUpdate(batch_size=len(requests), removed=[], added=added, moved=[]))
    return answers


def step(sampling: "QmdSampling", logits: torch.Tensor) -> list[int]:
    """The tokens that vLLM takes: the best of what the processor leaves."""
    return sampling.apply(logits.clone()).argmax(-1).tolist()


def wish(tokenizer: PreTrainedTokenizerBase, *texts: str) -> torch.Tensor:
    """Logits of one row that want the first text's first token most, then the second's, and so on."""
    logits = torch.zeros(1, len(tokenizer))
    for rank, text in enumerate(texts):
        logits[0, tokenizer.encode(text, add_special_tokens=False)[0]] = 20.0 - rank
    return logits


def test_the_end_is_legal_only_after_a_newline(sampling: "QmdSampling", tokenizer: PreTrainedTokenizerBase) -> None:
    (answer,) = start(sampling, request(COLD, grammar=True))
    wants_end = wish(tokenizer, tokenizer.eos_token)
    for text in ("lex", ":", " a", "b"):
        assert step(sampling, wants_end) != [tokenizer.eos_token_id]
        answer += tokenizer.encode(text, add_special_tokens=False)
    assert step(sampling, wants_end) != [tokenizer.eos_token_id]
    answer += tokenizer.encode("\n", add_special_tokens=False)
    assert step(sampling, wants_end) == [tokenizer.eos_token_id]


def test_an_illegal_token_is_drawn_again_among_the_legal_ones(
    sampling: "QmdSampling", tokenizer: PreTrainedTokenizerBase
) -> None:
    start(sampling, request(COLD, grammar=True))
    (token,) = step(sampling, wish(tokenizer, "Sure", "The", "vec", "lex"))
    assert tokenizer.decode([token]) == "vec"


def test_legal_tokens_keep_the_weight_that_illegal_ones_do_not_take_from_them(
    sampling: "QmdSampling", tokenizer: PreTrainedTokenizerBase
) -> None:
    """With .5 for an illegal token, .4 and .1 for legal ones: .4 + .5 × .8 = .8, as when masked first."""
    start(sampling, *(request(Decode(1.0, 3, 1.0, 0.0), grammar=True, seed=seed) for seed in range(4000)))
    illegal, vec, lex = (tokenizer.encode(text, add_special_tokens=False)[0] for text in ("Sure", "vec", "lex"))
    logits = torch.full((1, len(tokenizer)), -50.0)
    logits[0, [illegal, vec, lex]] = torch.tensor([0.5, 0.4, 0.1]).log()
    tokens = step(sampling, logits.expand(4000, -1))
    assert tokens.count(vec) / 4000 == pytest.approx(0.8, abs=0.02)
    assert tokens.count(lex) / 4000 == pytest.approx(0.2, abs=0.02)


def test_a_draw_that_vllm_discards_changes_nothing(sampling: "QmdSampling", tokenizer: PreTrainedTokenizerBase) -> None:
    """While a long prompt is read in parts, vLLM samples after each part and throws the token away."""
    (answer,) = start(sampling, request(QMD_DECODE, grammar=True, seed=5))
    logits = torch.randn(1, len(tokenizer), generator=torch.Generator().manual_seed(0))
    first = step(sampling, logits)
    assert step(sampling, logits) == first
    answer += first
    assert tokenizer.decode(first) in ("lex", "vec", "hyde", "h", "hy", "hyd", "l", "le", "v", "ve")


def test_an_answer_ends_where_a_logit_is_not_a_number_and_the_others_go_on(
    sampling: "QmdSampling", tokenizer: PreTrainedTokenizerBase
) -> None:
    start(sampling, request(QMD_DECODE, grammar=True), request(COLD), request(COLD))
    logits = wish(tokenizer, "vec").repeat(3, 1)
    logits[0, 100] = logits[1, 7] = float("nan")
    *ended, going_on = step(sampling, logits)
    assert ended == [tokenizer.eos_token_id] * 2
    assert tokenizer.decode([going_on]) == "vec"


def test_requests_keep_their_settings_when_vllm_moves_them(
    sampling: "QmdSampling", tokenizer: PreTrainedTokenizerBase
) -> None:
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    params = [request(PLAIN, seed=1), request(COLD), request(QMD_DECODE, seed=3)]
    logits = torch.randn(3, len(tokenizer), generator=torch.Generator().manual_seed(0))
    start(sampling, *params)
    before = step(sampling, logits)
    moved = [(2, 0, MoveDirectionality.UNIDIRECTIONAL)]
    sampling.update_state(BatchUpdate(batch_size=2, removed=[0], added=[], moved=moved))
    assert step(sampling, logits[[2, 1]]) == [before[2], before[1]]


def test_other_requests_are_left_to_vllm(sampling: "QmdSampling", tokenizer: PreTrainedTokenizerBase) -> None:
    from vllm.sampling_params import SamplingParams

    start(sampling, SamplingParams(temperature=0.7), request(COLD))
    logits = torch.randn(2, len(tokenizer))
    left = sampling.apply(logits.clone())
    assert torch.equal(left[0], logits[0])
    assert left[1].isinf().sum() == 1


@pytest.mark.parametrize(
    ("argument", "temperature"),
    [
        ("{", 0.0),
        ('{"heat": 1}', 0.0),
        ('{"top_p": 0}', 0.0),
        ('{"temperature": -1}', 0.0),
        ('{"top_k": -1}', 0.0),
        ("{}", 0.7),
    ],
)
def test_a_request_that_cannot_be_drawn_is_refused(argument: str, temperature: float) -> None:
    from vllm.sampling_params import SamplingParams

    from inference_service.qmd_sampling import QmdSampling

    params = SamplingParams(temperature=temperature, extra_args={DECODE_ARGUMENT: argument})
    with pytest.raises(ValueError, match=DECODE_ARGUMENT):
        QmdSampling.validate_params(params)
