"""A running inference service, and what transformers says of the answers it gives."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from qmd_rpc.inference import POLICY_PATH, Completion
from qmd_schema.contract import Decode, prompt_text
from qmd_schema.expansion import KINDS

PLAIN = Decode(temperature=1.0, top_k=0, top_p=1.0, presence_penalty=0.0)
PROMPTS = [prompt_text(query, "<|im_start|>") for query in ("docker compose volumes", "rust async traits", "tea")]
TOLERANCE = 0.06
"""In nats, mean over tokens: bfloat16 keeps 8 bits, in vLLM and in transformers, which round at different places."""


@dataclass
class Service:
    process: subprocess.Popen[str]
    address: str
    config: Path
    model: Path

    def start_again(self) -> None:
        """Starts it as it was started at first; it has to have ended."""
        self.process = subprocess.Popen(self.process.args, stdout=subprocess.DEVNULL, text=True)


def save_model(folder: Path, like: Path, seed: int, **changes: int) -> Path:
    """A random Llama whose answers are not all alike."""
    config = AutoConfig.from_pretrained(like, initializer_range=0.25, **changes)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)
    return folder


def command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "inference_service", "--config", str(config), *arguments]


@contextmanager
def running_service(root: Path, folder: Path, model: Path, port: int, **changes: Any) -> Iterator[Service]:
    """A ready service of the cpu profile's config with changes; `folder` takes its config and its log."""
    values = yaml.safe_load((root / "configs/cpu/inference.yaml").read_text())
    config, log = folder / "inference.yaml", folder / "engine.log"
    config.write_text(yaml.safe_dump(values | {"port": port, "max_sequences": 32, "kv_cache_gib": 0.25} | changes))
    arguments = ["--model", str(model), "--log", str(log)]
    process = subprocess.Popen(command(config, *arguments), stdout=subprocess.PIPE, text=True)
    service = Service(process, f"127.0.0.1:{port}", config, model)
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline(), log.read_text()[-3000:]
        yield service
    finally:
        service.process.terminate()
        service.process.wait()


def answering(service: Service) -> int:
    """The completions that the service has let in and not yet answered."""
    state: dict[str, int] = httpx.get(f"http://{service.address}{POLICY_PATH}", trust_env=False).json()
    return state["answering"]


def assert_grammar_holds(answers: list[list[Completion]]) -> None:
    """Every line of the answers is one of QMD's grammar, the last one perhaps only begun."""
    heads = tuple(f"{kind}: " for kind in KINDS)
    for samples in answers:
        for sample in samples:
            *whole, last = sample.text.split("\n")
            assert all(line.startswith(heads) and line.partition(": ")[2] for line in whole)
            assert last.startswith(heads) or any(head.startswith(last) for head in heads)


def logits_of(
    model: torch.nn.Module, prompt: str, answer: list[int], tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """transformers' logits at each token of the answer, [tokens, vocabulary]."""
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids + answer])).logits[0].float()
    return logits[len(prompt_ids) - 1 : -1]


def error_of_logprobs(
    model: Path | torch.nn.Module,
    answers: list[list[Completion]],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] = PROMPTS,
) -> float:
    """How far the answers' log-probabilities are from those of a model, mean over all tokens."""
    if isinstance(model, Path):
        model = AutoModelForCausalLM.from_pretrained(model)
    errors = []
    for prompt, samples in zip(prompts, answers, strict=True):
        for sample in samples:
            expected = logits_of(model, prompt, sample.token_ids, tokenizer).log_softmax(-1)
            own = expected.gather(1, torch.tensor(sample.token_ids)[:, None]).squeeze(1)
            errors.append((own - torch.tensor(sample.logprobs)).abs())
    return torch.cat(errors).mean().item()
