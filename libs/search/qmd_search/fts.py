"""Full-text search as QMD does it: its lex-line syntax over SQLite FTS5."""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import regex

COLUMN_WEIGHTS = (1.5, 4.0, 1.0)
"""BM25 weights of path, title and body."""

# ECMAScript's white space, which differs from Python's in a few control characters.
_SPACE = r"\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_ITEM = regex.compile(rf'(?P<minus>-?)(?:"(?P<phrase>[^"]*)(?:"|$)|(?P<term>[^"{_SPACE}]+))')
_SPACES = regex.compile(rf"[{_SPACE}]+")
_HYPHENATED = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}'-]*-[\p{L}\p{N}][\p{L}\p{N}'-]*")
_DOTTED = regex.compile(r"[\p{L}\p{N}_]+(?:\.[\p{L}\p{N}_]+)+")
_NOT_IN_A_TERM = regex.compile(r"[^\p{L}\p{N}'_]")
_CJK = regex.compile(r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]+")


class Row(NamedTuple):
    """One document as it is indexed."""

    path: str
    title: str
    body: str


class FullTextIndex:
    """An FTS5 table (`porter unicode61`) over documents; a document's row id is its number, from 1."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    @staticmethod
    def build(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
        """Makes the table in a database that has none."""
        # The prefix indexes change no result; questions full of short words are found six times as fast with them.
        connection.execute(
            "CREATE VIRTUAL TABLE documents USING "
            "fts5(path, title, body, content='', tokenize='porter unicode61', prefix='1 2 3')"
        )
        spaced = ((number, *map(space_cjk, row)) for number, row in enumerate(rows, start=1))
        connection.executemany("INSERT INTO documents(rowid, path, title, body) VALUES (?, ?, ?, ?)", spaced)
        connection.execute("INSERT INTO documents(documents) VALUES ('optimize')")

    def search(self, match: str | None, limit: int) -> list[tuple[int, float]]:
        """The best documents for an FTS5 expression: (number, score), best first; none for no expression.

        A score is |bm25| / (1 + |bm25|), in [0, 1); higher is better.
        """
        if match is None:
            return []
        found = self._connection.execute(
            "SELECT rowid, bm25(documents, ?, ?, ?) AS score FROM documents WHERE documents MATCH ? "
            "ORDER BY score LIMIT ?",
            (*COLUMN_WEIGHTS, match, limit),
        )
        return [(number, abs(score) / (1 + abs(score))) for number, score in found]

    def close(self) -> None:
        self._connection.close()


def lex_expression(line: str) -> str | None:
    """The FTS5 expression that QMD makes of a lex line, or None where it does not search at all.

    Quoted phrases match exactly, as do `multi-agent` (the phrase "multi agent") and CJK runs (phrases of single
    characters); every other term, and each part of `3.14.0`, matches as a prefix. All of them must occur (AND);
    what a leading `-` negates must not (NOT). A line with nothing positive searches nothing. An unclosed quote
    runs to the end of the line.
    """
    positive: list[str] = []
    negative: list[str] = []
    for item in _ITEM.finditer(line):
        phrase = item["phrase"]
        parts = _quoted(_phrase(phrase)) if phrase is not None else _term(item["term"])
        if not item["minus"]:
            positive += parts
        elif parts:
            negative.append(parts[0] if len(parts) == 1 else f"({' AND '.join(parts)})")
    if not positive:
        return None
    return " AND ".join(positive) + "".join(f" NOT {part}" for part in negative)


def any_term_expression(text: str) -> str | None:
    """The FTS5 expression for documents that hold any whole word of `text`, as plain BM25 retrieval has it."""
    words = dict.fromkeys(regex.findall(r"[\p{L}\p{N}]+", space_cjk(text).lower()))
    return " OR ".join(f'"{word}"' for word in words) or None


def space_cjk(text: str) -> str:
    """Puts blanks around every CJK character, since `unicode61` takes a whole run of them for one word."""
    return _CJK.sub(lambda run: f" {' '.join(run.group())} ", text)


def _term(term: str) -> list[str]:
    """The FTS5 parts of one unquoted term, all of which must match."""
    if _HYPHENATED.fullmatch(term):
        return _quoted([_clean(part) for part in term.split("-")])
    if _DOTTED.fullmatch(term):
        return [f'"{_clean(part)}"*' for part in term.split(".")]
    if _CJK.search(term):
        return _quoted(_phrase(term))
    cleaned = _clean(term)
    return [f'"{cleaned}"*'] if cleaned else []


def _phrase(text: str) -> list[str]:
    """The words of an exact phrase; dotted tokens are indexed as their parts, so they are split here too."""
    tokens = _SPACES.split(space_cjk(text))
    return [_clean(part) for token in tokens for part in (token.split(".") if _DOTTED.fullmatch(token) else [token])]


def _quoted(words: list[str]) -> list[str]:
    phrase = " ".join(filter(None, words))
    return [f'"{phrase}"'] if phrase else []


def _clean(term: str) -> str:
    return _NOT_IN_A_TERM.sub("", term).lower()
