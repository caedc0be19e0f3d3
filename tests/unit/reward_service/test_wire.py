import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_rpc.decoding import RequestError
from qmd_rpc.v1.reward_pb2 import (
    Score,
    ScoreBatchRequest,
    ScoreBatchResponse,
    ScoreRequest,
    ScoreResponse,
    ScoreStreamRequest,
)
from reward_service.wire import CHUNK_BYTES, CHUNK_REQUESTS, reader, split_batch

requests = st.builds(ScoreRequest, query=st.text(max_size=300), expansion=st.text(max_size=9_000))


@given(st.lists(requests, max_size=200))
def test_the_chunks_of_a_batch_hold_its_requests_in_order(batch: list[ScoreRequest]) -> None:
    chunks = split_batch(ScoreBatchRequest(requests=batch).SerializeToString())
    assert [r for chunk in chunks for r in ScoreBatchRequest.FromString(chunk.data).requests] == batch
    assert [chunk.requests for chunk in chunks] == [
        len(ScoreBatchRequest.FromString(chunk.data).requests) for chunk in chunks
    ]
    assert [chunk.first for chunk in chunks] == [sum(c.requests for c in chunks[:i]) for i in range(len(chunks))]
    for chunk in chunks:
        assert chunk.requests <= CHUNK_REQUESTS and (chunk.requests == 1 or len(chunk.data) <= CHUNK_BYTES)


def test_answers_to_the_chunks_make_the_answer_to_the_batch_when_they_are_joined() -> None:
    first, second = (ScoreBatchResponse(scores=[Score(total=total)]) for total in (1, 2))
    joined = first.SerializeToString() + second.SerializeToString()
    assert [score.total for score in ScoreBatchResponse.FromString(joined).scores] == [1, 2]
    assert ScoreResponse.FromString(first.SerializeToString()).score.total == 1


def test_a_field_that_this_server_does_not_know_is_skipped() -> None:
    known = ScoreBatchRequest(requests=[ScoreRequest(query="tea")]).SerializeToString()
    for unknown in (b"\x10\x96\x01", b"\x11" + b"\0" * 8, b"\x1a\x03abc", b"\x25" + b"\0" * 4):
        assert sum(chunk.requests for chunk in split_batch(unknown + known + unknown + known)) == 2


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x0a\0" * 4_097, "requests: has more than 4,096 entries; wants at most 4,096"),
        (b"\x10\x01" * 10_000, "message: has more than 4,160 fields"),
        (b"\x0a\x05ab", "message: ends too early"),
        (b"\x0a", "message: ends too early"),
        (b"\x0b", "message: cannot be read"),
        (b"\xff" * 11, "message: cannot be read"),
    ],
)
def test_a_batch_that_is_bad_or_too_long_is_refused_before_it_is_read(data: bytes, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        split_batch(data)
    assert str(caught.value) == problem


@given(st.binary(max_size=50))
def test_any_bytes_are_split_or_the_callers_mistake(data: bytes) -> None:
    try:
        chunks = split_batch(data)
    except RequestError:
        return
    assert not chunks or b"".join(chunk.data for chunk in chunks) == data


def test_a_text_far_over_its_limit_is_named_without_being_read() -> None:
    data = ScoreRequest(query="tea", expansion="x" * 1_000_000).SerializeToString()
    with pytest.raises(RequestError, match="expansion: has 1,000,004 bytes; wants at most 16,384"):
        reader(ScoreRequest)(data)
    in_stream = ScoreStreamRequest(request=ScoreRequest.FromString(data)).SerializeToString()
    with pytest.raises(RequestError, match="request: has 1,000,013 bytes"):
        reader(ScoreStreamRequest)(in_stream)
