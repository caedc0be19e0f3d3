"""Rubric v1: how one expansion is scored. Rule-based and deterministic; `docs/scoring.md` explains it to users."""

import re
from typing import Any, Literal, NamedTuple

from qmd_reward import parts
from qmd_reward.features import Lines, Query, find_echoes, read_query
from qmd_reward.parts import MAX_DEDUCTIONS
from qmd_schema.deductions import Deduction
from qmd_schema.expansion import Kind, split_only

RUBRIC_VERSION = "1"

Rating = Literal["Failed", "Poor", "Acceptable", "Good", "Excellent"]
_RATINGS: tuple[tuple[float, Rating], ...] = ((80, "Excellent"), (60, "Good"), (40, "Acceptable"), (20, "Poor"))

_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_TURNS = ("\nassistant\n", "\nuser\n")

_ECHO_CAP = 50.0
"""Percentage that an expansion with a lex line equal to the query can reach at most."""


class RubricScore(NamedTuple):
    """The score of one expansion: the reward, its parts in points, and why points were lost."""

    score: float
    """The reward: total over max_possible, 0 to 1."""
    format: int
    diversity: int
    hyde: int
    quality: int
    entity: int
    think_bonus: int
    total: int
    """Sum of the parts, at least 0. The entity part enters with its sign and is reported with floor 0."""
    max_possible: int
    percentage: float
    """0 to 100, one decimal; capped at 50 where a lex line repeats the query, which `score` is not."""
    rating: Rating
    only_mode: Kind | None
    reasons: tuple[Deduction, ...]
    """Why points were lost, at most MAX_DEDUCTIONS; halved marks go without one."""
    entities: tuple[str, ...]
    """The query's entities, lower case, sorted."""

    @property
    def deductions(self) -> tuple[str, ...]:
        """The reasons as sentences."""
        return tuple(map(str, self.reasons))

    def as_row(self) -> dict[str, Any]:
        """What is written to JSON: the fields by name, the reasons as sentences under `deductions`."""
        names = [name if name != "reasons" else "deductions" for name in self._fields]
        return {name: getattr(self, name) for name in names}


def score(query: str, expansion: str) -> RubricScore:
    """Scores a model's answer to a query. Any text is accepted.

    query: with its `/only:KIND` ending where it has one; expansion: as the model wrote it.
    """
    bare_query, only = split_only(query) if "/" in query else (query, None)
    text, thought = _clean(expansion)
    texts = _read_lines(text)
    if isinstance(texts, Deduction):
        return _failed(only, texts)
    think_bonus = 0 if thought else 20
    if only is None:
        return _score_normal(read_query(query), texts, think_bonus)
    if not texts[only]:
        return _failed(only, Deduction("wanted_kind_missing", only))
    return _score_only(read_query(bare_query), only, texts, think_bonus)


def _clean(expansion: str) -> tuple[str, bool]:
    """Takes end markers and thinking off. Returns the text and whether thinking was used."""
    text = expansion.strip()
    if "<" not in text:
        return text, False
    text = text.replace("<|im_end|>", "").strip()
    if "<think>" not in text or "</think>" not in text:
        return text, False
    # No match begins after the last closing tag; searching there costs quadratic time on hostile text.
    closed, tag, rest = text.rpartition("</think>")
    return (_THINKING.sub("", closed + tag) + rest).strip(), True


def _read_lines(text: str) -> dict[Kind, list[str]] | Deduction:
    """The texts of the lines by kind, in order; or why the whole text fails."""
    if "<" in text and any(marker in text for marker in _MARKERS):
        return Deduction("chat_marker_left")
    lex, vec, hyde = [], [], []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if line[:4] == "lex:":
            lex.append(line[4:].lstrip())
        elif line[:4] == "vec:":
            vec.append(line[4:].lstrip())
        elif line[:5] == "hyde:":
            hyde.append(line[5:].lstrip())
        elif line:
            if any(turn in text for turn in _TURNS):
                return Deduction("chat_marker_left")
            return Deduction("line_without_kind", lines=(number,))
    return {"lex": lex, "vec": vec, "hyde": hyde}


def _score_normal(query: Query, texts: dict[Kind, list[str]], think_bonus: int) -> RubricScore:
    lex, vec, hyde = Lines(texts["lex"]), Lines(texts["vec"]), texts["hyde"]
    reasons: list[Deduction] = []
    points = (
        parts.format_part(lex, vec, reasons),
        parts.diversity(query, lex, vec, reasons),
        parts.hyde_part(hyde, reasons),
        parts.quality(query, lex, vec, reasons),
        parts.entity(query, lex, vec, reasons),
    )
    is_capped = query.lowered in lex.joined and bool(find_echoes(query, lex))
    if is_capped:
        reasons.append(Deduction("percentage_capped", "lex", number=int(_ECHO_CAP)))
    return _report(query, None, points, think_bonus, 140 if hyde else 120, is_capped, reasons)


def _score_only(query: Query, only: Kind, texts: dict[Kind, list[str]], think_bonus: int) -> RubricScore:
    wanted = Lines(texts[only])
    reasons: list[Deduction] = []
    points = (
        parts.only_format(only, texts, reasons),
        parts.only_diversity(only, query, wanted, reasons),
        0,
        parts.only_quality(only, query, wanted, reasons),
        parts.only_entity(only, query, wanted, reasons),
    )
    return _report(query, only, points, think_bonus, 120, False, reasons)


def _report(
    query: Query,
    only: Kind | None,
    points: tuple[int, int, int, int, int],
    think_bonus: int,
    max_possible: int,
    is_capped: bool,
    reasons: list[Deduction],
) -> RubricScore:
    format_, diversity, hyde, quality, entity = points
    total = max(0, format_ + diversity + hyde + quality + entity + think_bonus)
    percentage = min(_ECHO_CAP if is_capped else 100.0, total / max_possible * 100)
    return RubricScore(
        min(1.0, total / max_possible),
        format_,
        diversity,
        hyde,
        quality,
        entity if entity > 0 else 0,
        think_bonus,
        total,
        max_possible,
        round(percentage, 1),
        _rating(percentage),
        only,
        tuple(reasons[:MAX_DEDUCTIONS]),
        tuple(sorted(query.entities)),
    )


def _rating(percentage: float) -> Rating:
    for limit, rating in _RATINGS:
        if percentage >= limit:
            return rating
    return "Failed"


def _failed(only: Kind | None, reason: Deduction) -> RubricScore:
    return RubricScore(0.0, 0, 0, 0, 0, 0, 0, 0, 100, 0.0, "Failed", only, (reason,), ())
