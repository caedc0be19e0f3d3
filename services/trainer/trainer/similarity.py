"""How alike queries are: the overlap of their character trigrams, found through an index."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

from qmd_schema.expansion import split_only


def normalise(query: str) -> str:
    """Case, punctuation, spacing and a `/only:KIND` ending taken off, for comparing queries."""
    text = unicodedata.normalize("NFKC", split_only(query)[0]).casefold()
    return " ".join(re.sub(r"[^\w\s]|_", " ", text).split())


class SimilarityIndex:
    """Queries that can be asked which of them are like another one."""

    def __init__(self, queries: Iterable[str] = ()):
        self._sizes: list[int] = []
        self._holders: dict[str, list[int]] = defaultdict(list)
        for query in queries:
            self.add(query)

    def add(self, query: str) -> None:
        """Takes a query in; its number is how many were taken in before."""
        trigrams = _trigrams(normalise(query))
        for trigram in trigrams:
            self._holders[trigram].append(len(self._sizes))
        self._sizes.append(len(trigrams))

    def similar(self, query: str, threshold: float) -> dict[int, float]:
        """The queries at least `threshold` like this one, by number: Jaccard index of trigrams, 1.0 for the same text.

        threshold: in (0, 1]. A query without a letter or digit is like none.
        """
        own = _trigrams(normalise(query))
        shared = Counter(number for trigram in own for number in self._holders.get(trigram, ()))
        similarities = {number: both / (len(own) + self._sizes[number] - both) for number, both in shared.items()}
        return {number: value for number, value in similarities.items() if value >= threshold}


def _trigrams(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}
