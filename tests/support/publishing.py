"""Submissions to the publisher: a signed verdict about a model, with everything that is published beside it."""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from publisher.admission import Submission
from publisher.config import PublisherConfig
from qmd_schema.artifacts import sha256_folder, write_manifest
from qmd_schema.config import StrictModel
from qmd_schema.verdicts import Guard, Interval, ModelIdentity, Verdict, load_signing_key, sign

ROOT = Path(__file__).resolve().parents[2]


def publisher_config(folder: Path, **changes: Any) -> PublisherConfig:
    """A config whose registry and signing key are in `folder`, with few questions and every margin held."""
    values = {
        "folder": folder / "registry",
        "signing_key": folder / "verdict.key",
        "namespace": "acme",
        "size": "1M",
        "parity": {
            "prompts": 4,
            "answers": 2,
            "queries": ROOT / "evals" / "queries.jsonl",
            "margins": {"valid": 1.0, "rubric": 1.0, "gain": 1.0},
        },
        "base": {"name": "acme/tiny", "licence": "apache-2.0", "attribution": "It is a fine-tuned tiny model by Acme."},
    }
    return PublisherConfig.model_validate({**values, **changes})


def passing_verdict(model_sha256: str, changes: Mapping[str, Any] | None = None) -> Verdict:
    """A PASS over the base model, made now."""
    values = {
        "id": "verdict-1",
        "created": datetime.now(UTC).isoformat(),
        "outcome": "PASS",
        "reasons": ["gain over reference 0.031, at least 0.012 with 95 % confidence"],
        "candidate": ModelIdentity(reference="/runs/1/merged", sha256=model_sha256),
        "reference_kind": "base",
        "reference": ModelIdentity(reference="/models/base", sha256="b" * 64),
        "gains": {"over reference": Interval(mean=0.031, lower=0.012, upper=0.05, queries=80)},
        "p_value": 0.002,
        "minimum_effect": 0.01,
        "queries_to_decide": None,
        "guards": [Guard(name="fallback | notes", value=0.01, limit=0.02, held=True, decides=True)],
        "figures": {"candidate": {"ndcg@10": 0.7, "rubric": 0.86}, "reference": {"ndcg@10": 0.669}, "none": {}},
        "seeds": [1, 2],
        "qmd_contract": "2.8",
        "data_sha256": "d" * 64,
        "config_sha256": "c" * 64,
        "code_version": "0.1.0",
    }
    return Verdict.model_validate({**values, **(changes or {})})


def submit(folder: Path, model: Path, config: PublisherConfig, **verdict_changes: Any) -> Submission:
    """Writes what a run leaves for the publisher into `folder`."""
    verdict = passing_verdict(sha256_folder(model), verdict_changes)
    evaluation, data = folder / "evaluate", folder / "prepare"
    adapters = {stage: folder / stage / "adapter" for stage in ("sft", "grpo")}
    for path in (evaluation, data, *adapters.values()):
        path.mkdir(parents=True, exist_ok=True)
    signed = sign(verdict, load_signing_key(config.signing_key))
    (evaluation / "verdict.json").write_text(signed.model_dump_json(indent=2))
    (evaluation / "report.html").write_text("<h1>Verdict</h1>")
    (data / "train.jsonl").write_text('{"query": "tea"}\n')
    write_manifest(data, "prepare", StrictModel(), {}, seconds=1.0, packages=[])
    for stage, path in adapters.items():
        (path / "adapter_config.json").write_text(json.dumps({"r": 16, "base_model_name_or_path": "/runs/1/base"}))
        (path / "adapter_model.safetensors").write_bytes(b"weights")
        write_manifest(path.parent, stage, StrictModel(), {}, seconds=1.0, packages=[])
    return Submission(
        verdict=evaluation / "verdict.json",
        model=model,
        adapters=adapters,
        data_manifest=data / "manifest.json",
        evaluation=evaluation,
    )


def write_brief_model(source: Path, target: Path) -> None:
    """Copies a random Llama with tied embeddings and changes it so that it ends lines and answers as soon as it may.

    Every embedding gets a common direction, which then dominates the last hidden state; the newline and the end of
    text get more of it, so their logits are the highest.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    shutil.copytree(source, target)
    tokenizer = AutoTokenizer.from_pretrained(source)
    [newline] = tokenizer.encode("\n", add_special_tokens=False)
    weights = load_file(target / "model.safetensors")
    embeddings = weights["model.embed_tokens.weight"]
    direction = torch.full_like(embeddings[0], embeddings.shape[1] ** -0.5)
    embeddings += direction
    embeddings[newline] += 3 * direction
    embeddings[tokenizer.eos_token_id] += 4 * direction
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
