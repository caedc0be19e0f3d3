"""The points of each part of the rubric, and why others were lost.

Each function adds its reasons to `reasons`. Those that begin with `only_` score an answer to a query that ends in
`/only:KIND`.
"""

from collections.abc import Mapping

from qmd_reward.features import (
    Lines,
    Query,
    find_echoes,
    find_filler,
    find_generic,
    holding_entity,
    keeping_key_terms,
    repetition_penalty,
)
from qmd_reward.likeness import alike_pairs
from qmd_schema.deductions import Deduction
from qmd_schema.expansion import KINDS, Kind

MAX_DEDUCTIONS = 100
"""Reasons that one score names at most. A part's points are gone long before; hostile text has millions."""

Reasons = list[Deduction]


def format_part(lex: Lines, vec: Lines, reasons: Reasons) -> int:
    points = 30
    if not lex.texts:
        points -= 10
        reasons.append(Deduction("kind_missing", "lex"))
    if not vec.texts:
        points -= 10
        reasons.append(Deduction("kind_missing", "vec"))
    return points


def diversity(query: Query, lex: Lines, vec: Lines, reasons: Reasons) -> int:
    points = 0
    if lex.texts and vec.texts:
        points += 10
    else:
        reasons.append(Deduction("not_complementary"))
    if len(lex.texts) + len(vec.texts) >= 2:
        points += 5
    points += max(0, 5 - 2 * _alike("lex", query, lex, reasons))
    points += max(0, 5 - 2 * _alike("vec", query, vec, reasons))
    echoes = 10 * _echoes("lex", query, lex, reasons) + 3 * _echoes("vec", query, vec, reasons)
    return points + max(-10, 5 - echoes)


def hyde_part(hyde: list[str], reasons: Reasons) -> int:
    """Judges the first hyde line. The 5 points for a text without newline are always earned: a line has none."""
    if not hyde:
        return 0
    length = len(hyde[0])
    points = 10 + max(0, 5 - repetition_penalty(hyde[0]))
    if 50 <= length <= 200:
        return points + 5
    reasons.append(Deduction("hyde_length", "hyde", (1,), length))
    return points + 2 if length < 50 else points


def quality(query: Query, lex: Lines, vec: Lines, reasons: Reasons) -> int:
    points = 5
    if lex.texts and vec.texts:
        if _mean_length(lex) <= _mean_length(vec):
            points += 5
        else:
            reasons.append(Deduction("lex_longer_than_vec"))
    if vec.texts:
        points += 5 if _are_phrases(vec) else 2
    if lex.texts:
        keeping = keeping_key_terms(query, lex)
        points += 5 if keeping == len(lex.texts) else 2 if keeping else 0
        if not keeping:
            reasons.append(Deduction("key_terms_lost"))
        points -= 3 * _filler(query, lex, reasons)
        if len(query.words) >= 2 and '"' in lex.joined:
            points += 3
    return points


def entity(query: Query, lex: Lines, vec: Lines, reasons: Reasons) -> int:
    """The points may be far below 0: they enter the total as they are."""
    if not query.entities:
        return 10
    if not lex.texts:
        return 0
    points = 0
    holding = holding_entity(query, lex)
    if holding:
        points += 15 if holding == len(lex.texts) else 5
    else:
        points -= 30
        reasons.append(Deduction("no_line_with_entity", "lex"))
    joined = f"{lex.joined}\n{vec.joined}"
    missing = [entity for entity in query.entities if entity not in joined]
    if missing:
        points -= 20 * len(missing)
        reasons.append(Deduction("entities_lost", texts=tuple(sorted(missing))))
    points -= 15 * _generic(lex, reasons)
    if holding_entity(query, vec):
        points += 5
    return points


def only_format(only: Kind, texts: Mapping[Kind, list[str]], reasons: Reasons) -> int:
    others = sum(len(texts[kind]) for kind in KINDS if kind != only)
    if others:
        reasons.append(Deduction("unwanted_kind", only, number=others))
    return max(0, 30 - 10 * others)


def only_diversity(only: Kind, query: Query, wanted: Lines, reasons: Reasons) -> int:
    alike = _alike(only, query, wanted, reasons)
    points = 15 if len(wanted.texts) == 1 else 15 + max(0, 15 - 5 * alike)
    return max(0, points - 5 * _echoes(only, query, wanted, reasons))


def only_quality(only: Kind, query: Query, wanted: Lines, reasons: Reasons) -> int:
    if only == "hyde":
        length = len(wanted.texts[0])
        if 50 <= length <= 200:
            return 20
        reasons.append(Deduction("hyde_length", "hyde", (1,), length))
        return 15 if 30 <= length <= 300 else 10
    if only == "vec":
        if _are_phrases(wanted):
            return 20
        reasons.append(Deduction("vec_too_short", "vec"))
        return 15
    points = 15 if keeping_key_terms(query, wanted) == len(wanted.texts) else 10
    if not _generic(wanted, reasons):
        points += 5
    return points - 3 * _filler(query, wanted, reasons)


def only_entity(only: Kind, query: Query, wanted: Lines, reasons: Reasons) -> int:
    if not query.entities:
        return 10
    holding = holding_entity(query, wanted)
    if not holding:
        reasons.append(Deduction("no_line_with_entity", only))
        return 0
    return 20 if holding == len(wanted.texts) else 15


def _alike(kind: Kind, query: Query, lines: Lines, reasons: Reasons) -> int:
    """Pairs of lines that search for the same, MAX_DEDUCTIONS at most."""
    pairs = alike_pairs(query, lines, MAX_DEDUCTIONS)
    for pair in pairs:
        reasons.append(Deduction("lines_alike", kind, pair))
    return len(pairs)


def _echoes(kind: Kind, query: Query, lines: Lines, reasons: Reasons) -> int:
    """Lines that are the query again."""
    if query.lowered not in lines.joined:
        return 0
    echoes = find_echoes(query, lines)
    for number in echoes:
        reasons.append(Deduction("query_repeated", kind, (number,)))
    return len(echoes)


def _filler(query: Query, lex: Lines, reasons: Reasons) -> int:
    """Lines with filler words."""
    found = find_filler(query, lex)
    if found:
        reasons.append(Deduction("filler", "lex", texts=tuple(sorted(frozenset[str]().union(*found)))))
    return len(found)


def _generic(lex: Lines, reasons: Reasons) -> int:
    """Lines that say nothing of any subject."""
    generic = find_generic(lex)
    if generic:
        reasons.append(Deduction("generic_lines", "lex", texts=tuple(generic)))
    return len(generic)


def _mean_length(lines: Lines) -> float:
    """Characters."""
    return sum(map(len, lines.texts)) / len(lines.texts)


def _are_phrases(vec: Lines) -> bool:
    return all(len(text) > 15 and " " in text for text in vec.texts)
