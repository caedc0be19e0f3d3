"""The record of a comparison: what names it, what it says, and its signature."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata, resources
from importlib.resources.abc import Traversable

from evaluator.config import EvaluatorConfig
from evaluator.gate import Decision
from qmd_schema.artifacts import sha256_json
from qmd_schema.contract import QMD_CONTRACT
from qmd_schema.verdicts import ModelIdentity, Verdict

_MEASURING_PACKAGES = ("evaluator", "qmd_search", "qmd_reward", "qmd_schema")


def code_version() -> str:
    """The package's version, with a hash of all code that measures and decides: "0.1.0+3f2a…"."""
    digest = hashlib.sha256()
    for package in _MEASURING_PACKAGES:
        for file in sorted(_sources(resources.files(package)), key=lambda file: file.name):
            digest.update(file.read_bytes())
    return f"{metadata.version('qmd-evaluator')}+{digest.hexdigest()[:12]}"


def question(models: Sequence[ModelIdentity], data_sha256: str, config: EvaluatorConfig) -> str:
    """The hash of everything that a measurement of these models depends on; for none, of what all have in common."""
    identities = [[model.sha256, model.revision] for model in models]
    return sha256_json([identities, data_sha256, config.sha256(), code_version(), QMD_CONTRACT])


def make_verdict(
    session: str,
    candidate: ModelIdentity,
    reference: ModelIdentity,
    decision: Decision,
    figures: dict[str, dict[str, float]],
    data_sha256: str,
    config: EvaluatorConfig,
) -> Verdict:
    return Verdict(
        id=session,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        outcome=decision.outcome,
        reasons=decision.reasons,
        candidate=candidate,
        reference_kind="base" if reference.revision is None else "deployed",
        reference=reference,
        gains=decision.gains,
        slices=decision.slices,
        p_value=decision.p_value,
        minimum_effect=config.gate.minimum_effect,
        queries_to_decide=decision.queries_to_decide,
        guards=decision.guards,
        figures=figures,
        seeds=config.seeds,
        qmd_contract=QMD_CONTRACT,
        data_sha256=data_sha256,
        config_sha256=config.sha256(),
        code_version=code_version(),
    )


def _sources(folder: Traversable) -> list[Traversable]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _sources(entry)
        elif entry.name.endswith(".py"):
            found.append(entry)
    return found
