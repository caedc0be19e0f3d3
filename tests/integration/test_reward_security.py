"""TLS, client certificates and tokens of the server shell, at the reward service."""

import datetime
import ipaddress
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from qmd_rpc.channel import ServiceError
from qmd_rpc.reward import RewardClient
from qmd_rpc.security import Access
from support.rewarding import RewardProcess, running

OLD, NEW = "old-token-of-32-characters-123456", "new-token-of-32-characters-123456"
FreePort = Callable[[], int]


@dataclass
class Authority:
    """A certificate authority in a folder."""

    folder: Path

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {self.folder.name}")])
        self.certificate = self._sign(
            self.name, self.key.public_key(), x509.BasicConstraints(ca=True, path_length=None)
        )
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, name: x509.Name, key: Any, *extensions: x509.ExtensionType) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(subject_name=name, issuer_name=self.name, public_key=key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name: str) -> tuple[Path, Path]:
        """Files of a certificate for loopback, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(self._sign(subject, key.public_key(), names).public_bytes(serialization.Encoding.PEM))
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        paths[1].write_bytes(encoded)
        return paths


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "ours").mkdir()
    return Authority(tmp_path / "ours")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    (tmp_path / "theirs").mkdir()
    return Authority(tmp_path / "theirs")


def tls(authority: Authority, client_ca: Path | None = None) -> dict[str, Any]:
    certificate, key = authority.issue("server")
    files = {"certificate": str(certificate), "key": str(key)}
    return {"tls": files | ({"client_ca": str(client_ca)} if client_ca else {})}


def tokens(folder: Path, *good: str) -> Path:
    path = folder / f"tokens-{len(good)}-{good[0][:3]}"
    path.write_text("\n".join(good))
    return path


def code(address: str, access: Access) -> grpc.StatusCode | None:
    with RewardClient(address, deadline=3, access=access) as client, pytest.raises(ServiceError) as caught:
        client.score("tea", "lex: tea")
    return caught.value.code


def test_a_service_with_a_certificate_is_called_by_those_who_know_its_ca(
    tmp_path: Path, free_port: FreePort, authority: Authority, stranger: Authority
) -> None:
    access = Access(ca=authority.ca)
    with running(tmp_path, free_port(), {"server": tls(authority)}, access=access) as (service, client):
        assert client.score("tea", "lex: tea").total
        for wrong in (Access(), Access(ca=stranger.ca)):
            assert code(service.address, wrong) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        health = [sys.executable, "-m", "qmd_rpc.health", service.address]
        assert subprocess.run([*health, "--ca", str(authority.ca)], check=False).returncode == 0
        assert subprocess.run(health, check=False, stderr=subprocess.DEVNULL).returncode == 1


def test_a_service_that_wants_client_certificates_is_called_by_those_who_have_one(
    tmp_path: Path, free_port: FreePort, authority: Authority, stranger: Authority
) -> None:
    certificate, key = authority.issue("client")
    access = Access(authority.ca, certificate, key)
    server = tls(authority, client_ca=authority.ca)
    with running(tmp_path, free_port(), {"server": server}, access=access) as (service, client):
        assert client.score("tea", "lex: tea").total
        theirs = stranger.issue("client")
        for wrong in (Access(authority.ca), Access(authority.ca, *theirs)):
            assert code(service.address, wrong) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@pytest.mark.parametrize("with_tls", [False, True])
def test_each_of_the_tokens_is_let_in_and_nobody_else_and_none_is_logged(
    tmp_path: Path, free_port: FreePort, authority: Authority, with_tls: bool
) -> None:
    server = {"tokens": str(tokens(tmp_path, OLD, NEW))} | (tls(authority) if with_tls else {})
    access = Access(ca=authority.ca if with_tls else None, token_file=tokens(tmp_path, OLD))
    with running(tmp_path, free_port(), {"server": server}, access=access) as (service, client):
        assert client.score("tea", "lex: tea").total
        with RewardClient(service.address, access=replace(access, token_file=tokens(tmp_path, NEW))) as other:
            assert other.score("tea", "lex: tea").total
            assert [found.total for found in other.score_stream([("tea", "lex: tea")])] == [
                client.score("tea", "lex: tea").total
            ]
        for wrong in (None, tokens(tmp_path, "bad-token-of-32-characters-123456")):
            assert code(service.address, replace(access, token_file=wrong)) is grpc.StatusCode.UNAUTHENTICATED
        with RewardClient(service.address, access=replace(access, token_file=None)) as unknown:
            unknown.wait_ready(10)
        service.end()
        log = service.log.read_text()
    assert not any(token in log for token in (OLD, NEW, "bad-token"))


def test_a_public_address_wants_a_guard_or_a_word(tmp_path: Path, free_port: FreePort) -> None:
    public = {"server": {"host": "0.0.0.0"}}
    refused = RewardProcess(tmp_path, free_port(), public)
    assert refused.process.wait(60) == 2
    assert "nothing guards it" in refused.log.read_text()
    refused.log.unlink()
    with running(tmp_path, free_port(), public, "--insecure") as (service, client):
        assert client.score("tea", "lex: tea").total
        assert all(isinstance(json.dumps(line), str) for line in service.lines())
