"""The reward that training by reinforcement uses: rubric, retrieval gain, contract and length in one number."""

from typing import NamedTuple, Self

from pydantic import Field, model_validator

from qmd_schema.config import StrictModel
from qmd_schema.contract import serve
from qmd_schema.expansion import keeps_rules, parse


class CompositeConfig(StrictModel):
    """The weights of the composite reward; docs/scoring.md gives the reason for each term."""

    rubric: float = Field(
        0.3, ge=0, description="Weight of the rubric's score, 0 to 1: keeps the form while the search is learnt."
    )
    retrieval: float = Field(0.7, ge=0, description="Weight of the retrieval gain: what the model is for.")
    gain_scale: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Gain in nDCG@10 that earns all of `retrieval`; its negative earns nothing, no gain half of it. "
        "Queries differ widely in what can be gained; beyond this a group's few lucky ones would drown the others.",
    )
    contract: float = Field(
        0.3,
        ge=0,
        description="Cost of an answer that breaks a rule of an expansion: hyde first, 1 to 3 lex and vec lines, no "
        "line twice, ended by itself. The rubric hardly minds these, and the gate lets almost none pass.",
    )
    length: float = Field(
        0.1, ge=0, description="Cost of an answer of `long_characters`: QMD waits for every token before it searches."
    )
    free_characters: int = Field(
        400, ge=0, description="Characters that cost nothing: one hyde, three lex and three vec lines of usual length."
    )
    long_characters: int = Field(
        1600, ge=1, description="Characters that cost all of `length`; QMD cuts at 600 tokens, about 2,400 characters."
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.long_characters <= self.free_characters:
            raise ValueError("long_characters wants to be above free_characters")
        return self


class CompositeReward(NamedTuple):
    """The reward, and its terms as they enter it; their sum may be below 0, the reward is not."""

    reward: float
    rubric: float
    retrieval: float
    contract: float
    """0 or below."""
    length: float
    """0 or below."""


def composite(config: CompositeConfig, query: str, expansion: str, score: float, gain: float) -> CompositeReward:
    """The reward of one expansion, 0 to the sum of the two weights.

    score: the rubric's, 0 to 1; gain: of `qmd_reward.retrieval`. An expansion of which QMD drops every line gets 0, and
    of the rubric's score each earns only the share of lines that are searched with.
    """
    share = searched_share(query, expansion)
    if not share:
        return CompositeReward(0.0, 0.0, 0.0, 0.0, 0.0)
    rubric = config.rubric * score * share
    retrieval = config.retrieval * (1 + relative_gain(config, gain)) / 2
    contract = 0.0 if keeps_rules(query, expansion) else -config.contract
    length = -config.length * length_cost(config, expansion)
    return CompositeReward(max(0.0, rubric + retrieval + contract + length), rubric, retrieval, contract, length)


def relative_gain(config: CompositeConfig, gain: float) -> float:
    """-1 to 1: a gain, or a line's credit, in units of `gain_scale`."""
    return min(1.0, max(-1.0, gain / config.gain_scale))


def searched_share(query: str, expansion: str) -> float:
    """The share of an expansion's lines that QMD searches with, 0 to 1."""
    lines = parse(expansion).expansion.lines
    served = serve(query, expansion)
    return len(served.lines) / len(lines) if lines and not served.is_fallback else 0.0


def length_cost(config: CompositeConfig, expansion: str) -> float:
    """0 up to `free_characters`, 1 from `long_characters` on, in between in proportion."""
    beyond = len(expansion.strip()) - config.free_characters
    return min(1.0, max(0.0, beyond / (config.long_characters - config.free_characters)))
