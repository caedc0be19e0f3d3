from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from publisher.admission import RefusedError, check_submission, check_verdict, read_trusted_verdict
from qmd_schema.artifacts import sha256_folder, write_manifest
from qmd_schema.config import StrictModel
from qmd_schema.errors import ArtifactError
from qmd_schema.verdicts import ModelIdentity, load_signing_key, read_signed_verdict, sign
from support.publishing import passing_verdict, publisher_config, submit

NOW = datetime.now(UTC)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "merged"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def test_a_signed_pass_is_admitted(tmp_path: Path, model: Path) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config)
    verdict = read_trusted_verdict(submission.verdict, config)
    check_verdict(verdict, config, None, NOW)
    assert list(check_submission(submission, config).outputs) == ["train.jsonl"]


def test_without_a_verdict_nothing_is_published(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no verdict there"):
        read_trusted_verdict(tmp_path / "verdict.json", publisher_config(tmp_path))


def test_a_verdict_signed_by_someone_else_is_refused(tmp_path: Path, model: Path) -> None:
    submission = submit(tmp_path, model, publisher_config(tmp_path, signing_key=tmp_path / "other.key"))
    with pytest.raises(ArtifactError, match="another key"):
        read_trusted_verdict(submission.verdict, publisher_config(tmp_path))


def test_a_verdict_changed_after_it_was_signed_is_refused(tmp_path: Path, model: Path) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config, outcome="FAIL")
    text = submission.verdict.read_text()
    submission.verdict.write_text(text.replace('"FAIL"', '"PASS"'))
    with pytest.raises(ArtifactError, match="signature does not match"):
        read_trusted_verdict(submission.verdict, config)


@pytest.mark.parametrize("outcome", ["FAIL", "INCONCLUSIVE"])
def test_a_verdict_that_is_not_pass_is_refused_with_its_reasons(tmp_path: Path, outcome: str) -> None:
    verdict = passing_verdict("a", {"outcome": outcome, "reasons": ["gain 0.001 is below 0.01"]})
    with pytest.raises(RefusedError, match=rf"is {outcome}, not PASS: gain 0.001 is below 0.01"):
        check_verdict(verdict, publisher_config(tmp_path), None, NOW)


def test_a_verdict_that_is_too_old_is_refused(tmp_path: Path) -> None:
    config = publisher_config(tmp_path, maximum_verdict_age_hours=24.0)
    verdict = passing_verdict("a", {"created": (NOW - timedelta(hours=25)).isoformat()})
    with pytest.raises(RefusedError, match="25 hours old, at most 24"):
        check_verdict(verdict, config, None, NOW)


def test_a_verdict_against_a_revision_that_is_no_longer_deployed_is_refused(tmp_path: Path) -> None:
    reference = ModelIdentity(reference="/registry/old", sha256="b", revision="old")
    verdict = passing_verdict("a", {"reference_kind": "deployed", "reference": reference})
    config = publisher_config(tmp_path)
    check_verdict(verdict, config, "old", NOW)
    with pytest.raises(RefusedError, match="compares with old, but new is deployed"):
        check_verdict(verdict, config, "new", NOW)


def test_a_verdict_against_the_base_counts_only_while_nothing_is_deployed(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="compares with the base model, but new is"):
        check_verdict(passing_verdict("a"), publisher_config(tmp_path), "new", NOW)


def test_an_adapter_that_the_model_was_not_made_of_is_refused(tmp_path: Path, model: Path) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config)
    own = sha256_folder(submission.adapters["grpo"])
    write_manifest(model, "merge", StrictModel(), {"adapter": own}, seconds=1.0, packages=[])
    check_submission(submission, config)
    for folder in submission.adapters.values():
        (folder / "adapter_model.safetensors").write_bytes(b"other weights")
    with pytest.raises(RefusedError, match="merged: was merged from another adapter than those given"):
        check_submission(submission, config)


def test_missing_training_data_is_refused(tmp_path: Path, model: Path) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config)
    submission.data_manifest.unlink()
    with pytest.raises(RefusedError, match="no manifest of the training data"):
        check_submission(submission, config)


def test_training_data_changed_since_its_manifest_is_refused(tmp_path: Path, model: Path) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config)
    (submission.data_manifest.parent / "train.jsonl").write_text("{}\n")
    with pytest.raises(RefusedError, match=r"train\.jsonl: missing, or changed"):
        check_submission(submission, config)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_model_folder_that_lacks_a_file_is_refused(tmp_path: Path, model: Path, name: str) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config)
    (model / name).unlink()
    with pytest.raises(RefusedError, match="safetensors missing" if "safetensors" in name else f"{name} missing"):
        check_submission(submission, config)


def test_an_evaluation_without_a_report_is_refused(tmp_path: Path, model: Path) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config)
    (submission.evaluation / "report.html").unlink()
    with pytest.raises(RefusedError, match=r"no report\.html"):
        check_submission(submission, config)


@pytest.mark.parametrize(
    ("suffix", "reason"), [("sft-v2", "holds the version 'v2'"), ("../x", "wants letters"), ("gguf", "GGUF files'")]
)
def test_an_adapter_under_an_unfit_name_is_refused(tmp_path: Path, model: Path, suffix: str, reason: str) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config)
    with pytest.raises(RefusedError, match=reason):
        check_submission(replace(submission, adapters={suffix: submission.adapters["sft"]}), config)


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path, model: Path) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config)
    with pytest.raises(RefusedError, match="not an adapter folder"):
        check_submission(replace(submission, adapters={"sft": model}), config)


def test_the_trusted_key_is_the_evaluators(tmp_path: Path, model: Path) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, model, config)
    verdict = read_signed_verdict(submission.verdict).verdict
    assert sign(verdict, load_signing_key(config.signing_key)) == read_signed_verdict(submission.verdict)
