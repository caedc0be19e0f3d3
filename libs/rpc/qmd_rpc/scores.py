"""Scores on the wire, and what they say in plain values."""

from typing import Any, get_args

from qmd_rpc.v1 import reward_pb2
from qmd_schema.deductions import Deduction, Reason
from qmd_schema.expansion import KINDS, Kind

# The type stubs tell an enum's values from the ints that they are.
_REASONS: dict[Reason, Any] = {
    reason: reward_pb2.Reason.Value(f"REASON_{reason.upper()}") for reason in get_args(Reason)
}
_KINDS: dict[Kind | None, Any] = {
    None: reward_pb2.KIND_UNSPECIFIED,
    **{kind: reward_pb2.Kind.Value(f"KIND_{kind.upper()}") for kind in KINDS},
}
_REASON_OF = {number: reason for reason, number in _REASONS.items()}
_KIND_OF = {number: kind for kind, number in _KINDS.items()}
_ROW = (
    *("score", "format", "diversity", "hyde", "quality", "entity", "think_bonus", "total", "max_possible"),
    *("percentage", "rating", "only_mode", "deductions", "entities"),
)


def kind_number(kind: Kind | None) -> Any:
    """A line's kind as the wire has it."""
    return _KINDS[kind]


def kind_name(number: int) -> Kind | None:
    """A line's kind; None where the wire says that there is none."""
    return _KIND_OF[number]


def write_reason(deduction: Deduction, message: reward_pb2.Deduction) -> None:
    """Fills an empty message; field by field, since that is much faster than by its constructor."""
    reason, kind, lines, number, texts = deduction
    message.reason = _REASONS[reason]
    if kind:
        message.kind = _KINDS[kind]
    if lines:
        message.lines.extend(lines)
    if number:
        message.count = number
    if texts:
        message.texts.extend(texts)


def read_reason(message: reward_pb2.Deduction) -> Deduction:
    """Raises KeyError for a reason that this client is too old to know."""
    kind = _KIND_OF[message.kind]
    return Deduction(_REASON_OF[message.reason], kind, tuple(message.lines), message.count, tuple(message.texts))


def rating_name(number: int) -> str:
    """A rating in plain words, such as "Excellent"."""
    return reward_pb2.Rating.Name(number).removeprefix("RATING_").capitalize()


def sentences(score: reward_pb2.Score) -> tuple[str, ...]:
    """Why points were lost, in sentences."""
    return tuple(str(read_reason(reason)) for reason in score.reasons)


def as_row(score: reward_pb2.Score) -> dict[str, Any]:
    """What is written to JSON: the score's fields by name, its reasons as sentences under `deductions`."""
    special = {
        "rating": rating_name(score.rating),
        "only_mode": score.only_mode or None,
        "deductions": sentences(score),
        "entities": tuple(score.entities),
    }
    return {name: special[name] if name in special else getattr(score, name) for name in _ROW}
