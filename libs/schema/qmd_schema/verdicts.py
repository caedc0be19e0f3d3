"""The verdict: the signed record of a comparison, without which nothing is published."""

from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import Field, ValidationError

from qmd_schema.artifacts import canonical_json
from qmd_schema.config import StrictModel
from qmd_schema.errors import ArtifactError

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class ModelIdentity(StrictModel):
    """A model that was measured: where it lay and what it held."""

    reference: str = Field(description="The folder or reference it was loaded from.")
    sha256: str = Field(description="Hash of the model folder, as `sha256_folder` gives it.")
    revision: str | None = Field(default=None, description="Registry revision, for a deployed model.")


class Interval(StrictModel):
    """A mean of paired differences with its bootstrap interval."""

    mean: float
    lower: float = Field(description="Lower end of the two-sided interval, at the stated confidence.")
    upper: float
    queries: int = Field(description="Queries the mean is taken over.")


class Guard(StrictModel):
    """One condition beside the primary gain."""

    name: str
    value: float = Field(description="What was measured: the bound that is compared, where a bound decides.")
    limit: float
    held: bool
    decides: bool = Field(description="False for a slice too small to decide: reported, never a reason to fail.")
    note: str = ""


class Verdict(StrictModel):
    """What a comparison found and what follows from it."""

    id: str
    created: str = Field(description="UTC time, ISO 8601.")
    outcome: Outcome
    reasons: list[str] = Field(description="Why, in sentences; never empty.", min_length=1)
    candidate: ModelIdentity
    reference_kind: Literal["deployed", "base"] = Field(description="What the candidate was compared with.")
    reference: ModelIdentity
    gains: dict[str, Interval] = Field(description="Gains in nDCG@10 by name: over the reference, by collection, …")
    slices: dict[str, Interval] = Field(
        default={}, description="Changes of the rubric score (0 to 1) against the reference, by slice."
    )
    p_value: float = Field(description="Sign-flip permutation test of the primary gain, one-sided.")
    minimum_effect: float
    queries_to_decide: int | None = Field(description="Queries that would decide an inconclusive comparison.")
    guards: list[Guard]
    figures: dict[str, dict[str, float]] = Field(description="Measured figures by side: candidate, reference, none.")
    seeds: list[int]
    qmd_contract: str
    data_sha256: str = Field(description="Hash over the evaluation queries and collections.")
    config_sha256: str
    code_version: str


class SignedVerdict(StrictModel):
    """A verdict with its Ed25519 signature over the canonical JSON of the verdict."""

    verdict: Verdict
    public_key: str = Field(description="Raw public key, hex.")
    signature: str = Field(description="Hex.")


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Reads the 32-byte private key (hex, one line); makes one, readable by its owner only, where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(fresh.hex() + "\n")
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
    except ValueError as error:
        raise ArtifactError(f"{path}: not an Ed25519 key of 64 hex digits. Restore it, or move it away.") from error


def public_key_hex(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def sign(verdict: Verdict, key: Ed25519PrivateKey) -> SignedVerdict:
    signature = key.sign(canonical_json(verdict.model_dump(mode="json")))
    return SignedVerdict(verdict=verdict, public_key=public_key_hex(key), signature=signature.hex())


def verify(signed: SignedVerdict, trusted_key: str) -> Verdict:
    """Returns the verdict when it was signed by the trusted key (hex); raises ArtifactError otherwise."""
    if signed.public_key != trusted_key:
        raise ArtifactError(f"verdict {signed.verdict.id}: signed with another key than the configured one.")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(trusted_key)).verify(
            bytes.fromhex(signed.signature), canonical_json(signed.verdict.model_dump(mode="json"))
        )
    except (InvalidSignature, ValueError) as error:
        raise ArtifactError(f"verdict {signed.verdict.id}: the signature does not match its content.") from error
    return signed.verdict


def read_signed_verdict(path: Path) -> SignedVerdict:
    if not path.is_file():
        raise ArtifactError(f"{path}: no verdict there. Run the evaluation first.")
    try:
        return SignedVerdict.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ArtifactError(f"{path}: not a signed verdict: {error}") from error
