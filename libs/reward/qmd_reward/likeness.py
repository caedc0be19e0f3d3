"""Which lines of one kind search for the same thing, in about linear time even where someone sends thousands."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from qmd_reward.features import Lines, Query

_FEW_LINES = 24
"""So many are simply compared each with each."""
_FEW_WORDS = 16
"""Lines of so many words are found by all their subsets with two words less."""


def alike_pairs(query: Query, lines: Lines, limit: int) -> list[tuple[int, int]]:
    """Pairs of line numbers, from 1, that are too much alike, sorted.

    Two lines are alike when one contains the other, or when fewer than 2 of their words differ, 3 for a query of 5
    words or more. limit: pairs returned at most. Where more are alike, it is always the same ones that are returned.
    """
    lowered, words = lines.lowered, lines.words
    least = 3 if len(query.words) >= 5 else 2
    if len(lowered) <= _FEW_LINES:
        pairs: Iterator[tuple[int, int]] = combinations(range(len(lowered)), 2)
    else:
        pairs = _candidates(lines, least - 1)
    alike: dict[tuple[int, int], None] = {}
    for i, j in pairs:
        first, second = lowered[i], lowered[j]
        if first in second or second in first or len(words[i] ^ words[j]) < least:
            alike[i + 1, j + 1] = None
            if len(alike) == limit:
                break
    return sorted(alike)


def _candidates(lines: Lines, most: int) -> Iterator[tuple[int, int]]:
    """All pairs that may be alike, of which `most` words may differ: 1 or 2. Some come twice."""
    yield from _containing(lines)
    yield from _nearly_same_words(lines, most)


def _containing(lines: Lines) -> Iterator[tuple[int, int]]:
    """Pairs of which one contains the other."""
    for i, line in enumerate(lines.lowered):
        if lines.joined.count(line) > 1:
            for j, other in enumerate(lines.lowered):
                if i != j and line in other:
                    yield min(i, j), max(i, j)


def _nearly_same_words(lines: Lines, most: int) -> Iterator[tuple[int, int]]:
    """Pairs whose word sets differ in at most `most` words.

    Such sets become equal when d words are taken from one and e from the other, d + e ≤ most. A set is looked up by
    the exclusive or of its words' hashes, from which a word is taken by applying its hash again.
    """
    with_fewer: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(most + 1)]
    long: list[int] = []
    for i, words in enumerate(lines.words):
        signatures = _signatures(words, most)
        for taken, found in enumerate(signatures):
            for signature in found:
                for other_taken in range(most + 1 - taken):
                    for j in with_fewer[other_taken].get(signature, ()):
                        yield j, i
        for taken, found in enumerate(signatures):
            for signature in found:
                with_fewer[taken][signature].append(i)
        if len(words) >= _FEW_WORDS - 1:
            yield from ((j, i) for j in long if words < lines.words[j] or lines.words[j] < words)
            long.append(i)


def _signatures(words: frozenset[str], most: int) -> list[list[int]]:
    """Of a set of words with none, one, … `most` of them taken away."""
    hashes = [hash(word) for word in sorted(words)]
    whole = 0
    for value in hashes:
        whole ^= value
    signatures = [[whole], [whole ^ value for value in hashes]]
    if most == 2:
        pairs = combinations(hashes, 2) if len(hashes) <= _FEW_WORDS else ()
        signatures.append([whole ^ first ^ second for first, second in pairs])
    return signatures
