from typing import get_args

from qmd_rpc.scores import read_reason, sentences, write_reason
from qmd_rpc.v1 import reward_pb2
from qmd_schema.deductions import Deduction, Reason


def test_every_reason_has_its_value_on_the_wire() -> None:
    names = {name.removeprefix("REASON_").lower() for name in dict(reward_pb2.Reason.items())}
    assert names == {*get_args(Reason), "unspecified"}


def test_a_deduction_survives_the_wire_and_is_the_same_sentence_there() -> None:
    for reason in get_args(Reason):
        for deduction in (Deduction(reason), Deduction(reason, "vec", (2, 3), 41, ("a, b", "ü"))):
            message = reward_pb2.Deduction()
            write_reason(deduction, message)
            assert read_reason(message) == deduction
            assert sentences(reward_pb2.Score(reasons=[message])) == (str(deduction),)
            assert str(deduction).endswith(".") and "{" not in str(deduction)
