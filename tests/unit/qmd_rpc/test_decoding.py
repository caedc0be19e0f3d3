from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_rpc.decoding import RequestError, decode
from qmd_rpc.v1 import evaluation_pb2, publishing_pb2, reward_pb2

GOOD = reward_pb2.ScoreRequest(query="tea", expansion="lex: tea").SerializeToString()


def in_batch(*requests: bytes) -> bytes:
    return b"".join(b"\x0a" + bytes([len(request)]) + request for request in requests)


def test_a_message_is_read() -> None:
    assert decode(reward_pb2.ScoreRequest, GOOD).query == "tea"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x0a\x02a\xff", "query: is no UTF-8 at byte 1"),
        (b"\x0a\x01a\x12\x01\x80", "expansion: is no UTF-8 at byte 0"),
        (b"\x0a\x05a", "message: is no foundry.v1.ScoreRequest"),
        (b"\xff\xff", "message: is no foundry.v1.ScoreRequest"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode(reward_pb2.ScoreRequest, data)
    assert str(caught.value) == problem


def test_a_text_in_a_batch_is_named_by_its_index() -> None:
    data = in_batch(GOOD, b"\x12\x01\xff")
    with pytest.raises(RequestError, match=r"^requests\[1\]\.expansion: is no UTF-8 at byte 0$"):
        decode(reward_pb2.ScoreBatchRequest, data)
    with pytest.raises(RequestError, match=r"^requests\[65\]\.expansion"):
        decode(reward_pb2.ScoreBatchRequest, data, first=64)


def test_a_message_of_a_file_with_imports_and_maps_is_explained_too() -> None:
    with pytest.raises(RequestError, match="verdict: is no UTF-8"):
        decode(publishing_pb2.PublishRequest, b"\x0a\x01\xff")
    with pytest.raises(RequestError):
        decode(publishing_pb2.PublishRequest, b"\x1a\x06\x0a\x01\xff\x12\x01a")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_the_callers_mistake(data: bytes) -> None:
    for message_type in (reward_pb2.ScoreBatchRequest, reward_pb2.ScoreRequest, evaluation_pb2.CompareRequest):
        with suppress(RequestError):
            decode(message_type, data)
