from pathlib import Path

import pytest

from qmd_schema.errors import ArtifactError
from qmd_schema.verdicts import (
    Interval,
    ModelIdentity,
    Verdict,
    load_signing_key,
    public_key_hex,
    read_signed_verdict,
    sign,
    verify,
)


def verdict(**changes: object) -> Verdict:
    values = {
        "id": "v1",
        "created": "2026-01-01T00:00:00Z",
        "outcome": "PASS",
        "reasons": ["gain above the minimum effect"],
        "candidate": ModelIdentity(reference="/a", sha256="1"),
        "reference_kind": "base",
        "reference": ModelIdentity(reference="/b", sha256="2"),
        "gains": {"over reference": Interval(mean=0.1, lower=0.05, upper=0.15, queries=80)},
        "p_value": 0.01,
        "minimum_effect": 0.01,
        "queries_to_decide": None,
        "guards": [],
        "figures": {"candidate": {"ndcg@10": 0.5}},
        "seeds": [0],
        "qmd_contract": "2.8",
        "data_sha256": "3",
        "config_sha256": "4",
        "code_version": "0.1.0",
    }
    return Verdict.model_validate({**values, **changes})


def test_a_signed_verdict_is_verified_after_a_round_trip(tmp_path: Path) -> None:
    key = load_signing_key(tmp_path / "key")
    path = tmp_path / "verdict.json"
    path.write_text(sign(verdict(), key).model_dump_json())
    assert verify(read_signed_verdict(path), public_key_hex(key)) == verdict()


def test_a_changed_verdict_is_refused(tmp_path: Path) -> None:
    key = load_signing_key(tmp_path / "key")
    signed = sign(verdict(outcome="FAIL"), key)
    forged = signed.model_copy(update={"verdict": verdict(outcome="PASS")})
    with pytest.raises(ArtifactError, match="does not match"):
        verify(forged, public_key_hex(key))


def test_a_verdict_signed_with_another_key_is_refused(tmp_path: Path) -> None:
    ours, other = load_signing_key(tmp_path / "ours"), load_signing_key(tmp_path / "other")
    with pytest.raises(ArtifactError, match="another key"):
        verify(sign(verdict(), other), public_key_hex(ours))


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "key"
    first = public_key_hex(load_signing_key(path))
    assert public_key_hex(load_signing_key(path)) == first
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("garbage")
    with pytest.raises(ArtifactError, match="64 hex digits"):
        load_signing_key(path)


def test_a_verdict_without_a_reason_is_none() -> None:
    with pytest.raises(ValueError, match="reasons"):
        verdict(reasons=[])
