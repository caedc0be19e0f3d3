import pytest

from qmd_rpc.decoding import RequestError
from qmd_rpc.v1.reward_pb2 import ScoreRequest, ScoreRetrievalRequest
from reward_service.limits import check_request, check_retrieval


@pytest.mark.parametrize(("query", "expansion"), [("a", ""), ("é" * 2_000, "é" * 8_192)])
def test_a_request_within_the_limits_passes(query: str, expansion: str) -> None:
    check_request(ScoreRequest(query=query, expansion=expansion))


@pytest.mark.parametrize(
    ("query", "expansion", "problem"),
    [
        ("", "lex: a", "query: is empty; wants 1 to 2,000 characters"),
        ("a" * 2_001, "lex: a", "query: has 2,001 characters; wants 1 to 2,000"),
        ("a", "é" * 8_192 + "a", "expansion: has 16,385 bytes of UTF-8; wants at most 16,384"),
        ("a\0", "lex: a", "query: has a NUL at character 1; wants text without NUL"),
        ("a", "lex: \0", "expansion: has a NUL at character 5; wants text without NUL"),
    ],
)
def test_a_request_outside_the_limits_is_named_by_field_and_limit(query: str, expansion: str, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_request(ScoreRequest(query=query, expansion=expansion), "requests[3].")
    assert str(caught.value) == f"requests[3].{problem}"


def test_an_expansion_of_hundreds_of_lines_is_not_searched_with() -> None:
    check_retrieval(ScoreRetrievalRequest(query="a", expansion="\n".join(["lex: a"] * 256)))
    with pytest.raises(RequestError, match="expansion: has 257 lines; wants at most 256"):
        check_retrieval(ScoreRetrievalRequest(query="a", expansion="\n".join(["lex: a"] * 257)))
