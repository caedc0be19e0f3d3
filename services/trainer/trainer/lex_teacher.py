"""A teacher of lex lines that needs no model: the words of a query that the search gains most from, found by trying."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from math import log
from typing import NamedTuple

from qmd_schema.contract import keeps
from qmd_schema.expansion import Line
from qmd_search.collections import Document
from qmd_search.words import content_words

LINE_WORDS = (1, 2, 3)
MOST_WORDS = 5
"""Words of a query that lines are made of, its rarest: 25 lines to try."""
LINES = 2

Lines = tuple[Line, ...]
Measure = Callable[[Sequence[tuple[int, Lines]]], Sequence[float]]
"""Gains over no expansion, in nDCG@10, of searches for the judged queries of numbered lessons with the lines given."""


class Rarity:
    """How seldom the words of a collection are: 1 for a word of one document, 0 for one that all of them hold."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._holders = Counter(
            word for document in documents for word in set(content_words(f"{document.title} {document.text}"))
        )
        self._documents = len(documents)

    def __getitem__(self, word: str) -> float:
        """0 for a word that no document holds: a line with it finds nothing."""
        holders = self._holders[word]
        return log(self._documents / holders) / log(self._documents) if holders and self._documents > 1 else 0.0

    def of_line(self, line: Line) -> float:
        """The mean over the line's words."""
        own = line.text.split()
        return sum(self[word] for word in own) / len(own)


class Lesson(NamedTuple):
    """A judged query, and what its lex lines are tried beside."""

    query: str
    contexts: Sequence[Lines]
    """Other lines of an expansion; each stands for a way in which a model may go on."""


def teach(
    lessons: Sequence[Lesson], rarities: Sequence[Rarity], measure: Measure, gain_cap: float, rarity_weight: float
) -> list[Lines]:
    """The lex lines to write for each query, the best first, at most two; none where each takes something away.

    rarities: of the collection of each lesson. A line counts if it takes nothing away beside any of the contexts. Of
    these the one is taken with the highest mean gain, of which `gain_cap` counts at most, plus `rarity_weight` times
    its rarity, and then, beside it, another one. The words that look best by one judgement are mostly luck, which
    cannot be learnt; that rare words find can.
    """
    candidates = [_candidates(lesson.query, rarity) for lesson, rarity in zip(lessons, rarities, strict=True)]
    chosen: list[Lines] = [()] * len(lessons)
    for _ in range(LINES):
        gains = _added(lessons, chosen, candidates, measure)
        for number, (rarity, added) in enumerate(zip(rarities, gains, strict=True)):
            worthy = {
                line: min(sum(values) / len(values), gain_cap) + rarity_weight * rarity.of_line(line)
                for line, values in added.items()
                if min(values) >= 0
            }
            best = max(worthy, key=worthy.__getitem__, default=None)
            # What takes something away beside fewer lines does so beside more.
            candidates[number] = [line for line in worthy if best and not _share_first_word(line, best)]
            chosen[number] += (best,) if best else ()
    return chosen


def _candidates(query: str, rarity: Rarity) -> list[Line]:
    """Lines of one to three words of the query that its collection holds, in the query's order."""
    own = [word for word in dict.fromkeys(content_words(query)) if rarity[word]]
    rarest = set(sorted(own, key=lambda word: -rarity[word])[:MOST_WORDS])
    words = [word for word in own if word in rarest]
    texts = (" ".join(part) for size in LINE_WORDS for part in combinations(words, size))
    return [Line("lex", text) for text in texts if text != query and keeps(query, text)]


def _added(
    lessons: Sequence[Lesson], chosen: Sequence[Lines], candidates: Sequence[Iterable[Line]], measure: Measure
) -> list[Mapping[Line, list[float]]]:
    """For each lesson and candidate, what the line adds to each of the contexts with the lines already chosen."""
    places = [
        (number, context, line)
        for number, lesson in enumerate(lessons)
        for context in lesson.contexts
        for line in (None, *candidates[number])
    ]
    gains = measure(
        [(number, (*chosen[number], *([line] if line else []), *context)) for number, context, line in places]
    )
    added: list[dict[Line, list[float]]] = [{} for _ in lessons]
    without = 0.0
    for (number, _, line), gain in zip(places, gains, strict=True):
        if line is None:
            without = gain
        else:
            added[number].setdefault(line, []).append(gain - without)
    return list(added)


def _share_first_word(line: Line, other: Line) -> bool:
    return line.text.split()[0] == other.text.split()[0]
