"""What the rubric looks at in a query and in the lines of an expansion."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

from qmd_reward.words import (
    FILLER_WORDS,
    GENERIC_PHRASES,
    KEY_TERM_STOPWORDS,
    QUERY_VERB_STOPWORDS,
    STOPWORDS,
)

_PUNCTUATION = ".,!?:;()[]\"'"
_ENTITY_MARKS = frozenset(".+-#@")
_WORD = re.compile(r"\w+")
_ASCII_WORDS = bytes(code if chr(code).isalnum() or code == ord("_") else ord(" ") for code in range(256))
"""Turns every ASCII character that is not of a word into a blank."""
_FILLER_WORDS = tuple(FILLER_WORDS)
_GENERIC_PHRASES = tuple((phrase, tuple(phrase.split())) for phrase in GENERIC_PHRASES)
_GENERIC_STARTS = tuple({words[0] for _, words in _GENERIC_PHRASES})


class Query(NamedTuple):
    """A query without its `/only:KIND` ending."""

    lowered: str
    """Lower case, stripped."""
    words: list[str]
    """Lower case, as are the entities and key terms."""
    entities: frozenset[str]
    key_terms: frozenset[str]


class Lines:
    """The texts of the lines of one kind, in order; `lowered`, `words` of each and `joined` are in lower case."""

    __slots__ = ("joined", "lowered", "texts", "words")

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.lowered = [text.lower() for text in texts]
        self.words = [frozenset(text.split()) for text in self.lowered]
        self.joined = "\n".join(self.lowered)


def read_query(query: str) -> Query:
    lowered = query.lower().strip()
    words = lowered.split()
    return Query(lowered, words, find_entities(query.split()), frozenset(words) - KEY_TERM_STOPWORDS)


def find_entities(query_words: Sequence[str]) -> frozenset[str]:
    """Names, acronyms and version-like words of a query, lower case.

    A base entity takes the word after it along ("Project atlas"), that word takes none further.
    """
    entities = set()
    follows_base = False
    for position, raw in enumerate(query_words):
        word = raw.strip(_PUNCTUATION)
        lowered = word.lower()
        is_base = _is_base_entity(word, lowered, position)
        if is_base or (follows_base and word and not word[0].isupper() and lowered not in KEY_TERM_STOPWORDS):
            entities.add(lowered)
        follows_base = is_base
    return frozenset(entities)


def _is_base_entity(word: str, lowered: str, position: int) -> bool:
    if word.islower():
        return len(word) >= 2 and not _ENTITY_MARKS.isdisjoint(word)
    if len(word) >= 2 and word.isupper():
        return True
    if word[:1].isupper() and lowered not in KEY_TERM_STOPWORDS:
        return position > 0 or lowered not in QUERY_VERB_STOPWORDS
    if len(word) < 2:
        return False
    return not _ENTITY_MARKS.isdisjoint(word) or (word[0].isupper() and any(c.isupper() for c in word[1:]))


def find_echoes(query: Query, lines: Lines) -> list[int]:
    """Numbers, from 1, of the lines that are the query again, with fewer than 10 characters of their own."""
    echo, limit = query.lowered, len(query.lowered) + 10
    return [number for number, line in enumerate(lines.lowered, start=1) if echo in line and len(line) < limit]


def keeping_key_terms(query: Query, lex: Lines) -> int:
    """Lines that hold a key term of the query; all, where it has none."""
    if not query.key_terms:
        return len(lex.texts)
    return len(lex.texts) - sum(map(query.key_terms.isdisjoint, lex.words))


def holding_entity(query: Query, lines: Lines) -> int:
    """Lines that hold an entity of the query, which has some."""
    count = 0
    for line in lines.lowered:
        for entity in query.entities:
            if entity in line:
                count += 1
                break
    return count


def find_filler(query: Query, lex: Lines) -> list[frozenset[str]]:
    """The filler words of each line that has some which are not the query's own."""
    for word in _FILLER_WORDS:
        if word in lex.joined:
            found = [(FILLER_WORDS & words).difference(query.words) for words in lex.words]
            return [words for words in found if words]
    return []


def find_generic(lex: Lines) -> list[str]:
    """The lines that say nothing of any subject."""
    if not _may_be_generic(lex):
        return []
    return [text for text, lowered in zip(lex.texts, lex.lowered, strict=True) if is_generic(lowered)]


def _may_be_generic(lex: Lines) -> bool:
    starts = sum(map(str.startswith, lex.lowered, repeat(_GENERIC_STARTS)))
    return starts > 0 or any(map(lex.joined.__contains__, GENERIC_PHRASES))


def is_generic(line: str) -> bool:
    """Whether fewer than 3 characters are left of a line without the words of a generic phrase."""
    for phrase, words in _GENERIC_PHRASES:
        if line.startswith(words[0]) or phrase in line:
            rest = line
            for word in words:
                rest = rest.replace(word, "", 1).strip()
            if len(rest) < 3:
                return True
    return False


def repetition_penalty(text: str) -> int:
    """Points lost for words that occur three times and more: 2 for the third and for each further time."""
    lowered = text.lower()
    is_plain = lowered.isascii()
    words = lowered.encode().translate(_ASCII_WORDS).decode().split() if is_plain else _WORD.findall(lowered)
    if len(words) - len(set(words)) < 2:
        return 0
    penalty = 0
    for word, count in Counter(words).items():
        if count >= 3 and len(word) > 2 and word not in STOPWORDS:
            penalty += 2 * (count - 2)
    return penalty
