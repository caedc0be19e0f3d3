"""Who may call a service, and how both ends prove who they are: TLS from files, and bearer tokens."""

import hashlib
import hmac
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from pydantic import Field

from qmd_schema.config import StrictModel
from qmd_schema.errors import UserError

LEAST_TOKEN_CHARACTERS = 16


class TlsConfig(StrictModel):
    """The server's certificate, and whether callers need one too."""

    certificate: Path = Field(description="PEM file of the server's certificate, with those that lead to its CA.")
    key: Path = Field(description="PEM file of the certificate's private key.")
    client_ca: Path | None = Field(
        None, description="PEM file of the CA that callers' certificates are from (mTLS); without it they need none."
    )


@dataclass(frozen=True)
class Access:
    """What a client needs for a service that is guarded. Without a CA it speaks plain text."""

    ca: Path | None = None
    """PEM file of the CA that the server's certificate is from."""
    certificate: Path | None = None
    """PEM file of the client's certificate (mTLS), with `key`."""
    key: Path | None = None
    token_file: Path | None = None
    """File with the bearer token in its first line."""

    def credentials(self) -> grpc.ChannelCredentials | None:
        if (self.certificate is None) != (self.key is None):
            raise UserError("a client certificate and its key come together: give both or neither.")
        if self.ca is None:
            if self.certificate is not None:
                raise UserError(f"{self.certificate}: a client certificate needs TLS; name the server's CA as well.")
            return None
        key, certificate = (_read(path) if path else None for path in (self.key, self.certificate))
        return grpc.ssl_channel_credentials(_read(self.ca), key, certificate)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        if self.token_file is None:
            return ()
        return (("authorization", f"Bearer {read_tokens(self.token_file)[0]}"),)


def read_tokens(path: Path) -> list[str]:
    """The tokens of a file, one a line; blank lines and those that begin with # are left out."""
    lines = [line.strip() for line in _read(path).decode(errors="replace").splitlines()]
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise UserError(f"{path}: holds no token; write one a line, such as `openssl rand -hex 32` makes.")
    for token in tokens:
        if len(token) < LEAST_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
            raise UserError(f"{path}: a token wants at least {LEAST_TOKEN_CHARACTERS} ASCII characters without blanks.")
    return tokens


class TokenCheck:
    """Knows the hashes of the tokens that are good. Takes the same time for every token that is not."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._hashes = [_hash(token) for token in tokens]

    def allows(self, metadata: Sequence[tuple[str, str | bytes]] | None) -> bool:
        header = next((str(value) for key, value in metadata or () if key == "authorization"), "")
        scheme, _, token = header.partition(" ")
        given = _hash(token)
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        return scheme.lower() == "bearer" and any(matches)


def server_credentials(tls: TlsConfig) -> grpc.ServerCredentials:
    """Raises UserError for a file that is missing or does not fit."""
    key, certificate = _read(tls.key), _read(tls.certificate)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca:
            _read(tls.client_ca)
            ssl.create_default_context(cafile=tls.client_ca)
    except ssl.SSLError as error:
        files = ", ".join(str(path) for path in (tls.certificate, tls.key, tls.client_ca) if path)
        raise UserError(f"{files}: not a certificate, its key and a CA in PEM: {error.reason or error}.") from error
    ca = _read(tls.client_ca) if tls.client_ca else None
    return grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=ca is not None)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from error
