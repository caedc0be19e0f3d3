"""Scores requests with the rubric: what runs beside the event loop, in a thread or in a worker process."""

from qmd_reward.rubric import RubricScore, score
from qmd_rpc.decoding import decode
from qmd_rpc.scores import write_reason
from qmd_rpc.v1 import reward_pb2
from reward_service.limits import check_request

_RATINGS = {
    "Failed": reward_pb2.RATING_FAILED,
    "Poor": reward_pb2.RATING_POOR,
    "Acceptable": reward_pb2.RATING_ACCEPTABLE,
    "Good": reward_pb2.RATING_GOOD,
    "Excellent": reward_pb2.RATING_EXCELLENT,
}


def score_request(request: reward_pb2.ScoreRequest) -> reward_pb2.ScoreResponse:
    """Scores a request that is within its limits."""
    return reward_pb2.ScoreResponse(score=to_message(score(request.query, request.expansion)))


def score_chunk(data: bytes, first: int) -> bytes:
    """Scores a serialized ScoreBatchRequest, whose first request has the index `first` in its batch or stream.

    Returns a serialized ScoreBatchResponse. Raises RequestError for the first request outside its limits.
    """
    requests = decode(reward_pb2.ScoreBatchRequest, data, first=first).requests
    for index, request in enumerate(requests, start=first):
        check_request(request, f"requests[{index}].")
    scores = [to_message(score(request.query, request.expansion)) for request in requests]
    return reward_pb2.ScoreBatchResponse(scores=scores).SerializeToString()


def to_message(result: RubricScore) -> reward_pb2.Score:
    """A score as the wire has it."""
    message = reward_pb2.Score(
        score=result.score,
        format=result.format,
        diversity=result.diversity,
        hyde=result.hyde,
        quality=result.quality,
        entity=result.entity,
        think_bonus=result.think_bonus,
        total=result.total,
        max_possible=result.max_possible,
        percentage=result.percentage,
        rating=_RATINGS[result.rating],
    )
    if result.only_mode:
        message.only_mode = result.only_mode
    message.entities.extend(result.entities)
    for reason in result.reasons:
        write_reason(reason, message.reasons.add())
    return message
