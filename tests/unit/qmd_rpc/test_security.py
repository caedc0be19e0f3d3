from pathlib import Path

import pytest

from qmd_rpc.security import Access, TlsConfig, TokenCheck, is_loopback, read_tokens, server_credentials
from qmd_schema.errors import UserError

OLD, NEW = "old-token-of-32-characters-123456", "new-token-of-32-characters-123456"


def test_each_of_several_tokens_is_good_and_no_other() -> None:
    check = TokenCheck([OLD, NEW])
    assert check.allows([("authorization", f"Bearer {OLD}")])
    assert check.allows([("other", "x"), ("authorization", f"bearer {NEW}")])
    for metadata in (
        None,
        [],
        [("authorization", OLD)],
        [("authorization", f"Basic {OLD}")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {OLD}x")],
        [("authorization", f"Bearer {OLD[:-1]}")],
    ):
        assert not check.allows(metadata)


def test_a_token_file_may_hold_comments_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# until May\n{OLD}\n\n  {NEW}  \n")
    assert read_tokens(path) == [OLD, NEW]


@pytest.mark.parametrize("text", ["short", "with a blank in the middle of it", "ümläute-ümläute-ümläute"])
def test_a_token_that_is_easily_guessed_or_cannot_be_sent_is_refused_without_showing_it(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(UserError, match="wants at least 16 ASCII characters") as caught:
        read_tokens(path)
    assert text not in str(caught.value)


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pem: No such file"):
        server_credentials(TlsConfig(certificate=tmp_path / "absent.pem", key=tmp_path / "absent.pem"))


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tea.pem"
    path.write_text("green tea")
    with pytest.raises(UserError, match=r"tea\.pem.*: not a certificate, its key and a CA in PEM"):
        server_credentials(TlsConfig(certificate=path, key=path))


def test_a_client_certificate_wants_its_key_and_the_servers_ca(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="come together"):
        Access(ca=tmp_path / "ca.pem", certificate=tmp_path / "c.pem").credentials()
    with pytest.raises(UserError, match="needs TLS"):
        Access(certificate=tmp_path / "c.pem", key=tmp_path / "k.pem").credentials()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_an_address_is_public_unless_it_is_of_the_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
