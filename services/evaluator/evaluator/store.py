"""The evaluator's memory: answers as they are generated, figures and verdicts, in one SQLite file."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qmd_schema.errors import ArtifactError
from qmd_schema.verdicts import SignedVerdict

_MIGRATIONS = (
    (
        "CREATE TABLE sessions (id TEXT PRIMARY KEY, question TEXT NOT NULL, begun REAL NOT NULL)",
        "CREATE TABLE answers (session TEXT, model TEXT, query TEXT, seed INTEGER, grammar INTEGER, "
        "text TEXT NOT NULL, tokens INTEGER NOT NULL, ended INTEGER NOT NULL, leaked INTEGER NOT NULL, "
        "PRIMARY KEY (session, model, grammar, seed, query)) WITHOUT ROWID",
        "CREATE TABLE latencies (session TEXT, model TEXT, query TEXT, seconds REAL NOT NULL, "
        "PRIMARY KEY (session, model, query)) WITHOUT ROWID",
        "CREATE TABLE verdicts (id TEXT PRIMARY KEY, created TEXT NOT NULL, outcome TEXT NOT NULL, "
        "candidate TEXT NOT NULL, reason TEXT NOT NULL, signed TEXT NOT NULL)",
    ),
    (
        "CREATE TABLE evaluations (session TEXT PRIMARY KEY, result TEXT NOT NULL)",
        "ALTER TABLE verdicts ADD COLUMN report TEXT",
    ),
)
"""Statements that make a store of each format from one of the format before; an empty file has format 0."""


@dataclass(frozen=True)
class Answer:
    """What a model answered to one query."""

    query: str
    """The query's key in the eval set."""
    seed: int
    grammar: bool
    text: str
    tokens: int
    ended: bool
    """It ended by itself, not at the token limit."""
    leaked: bool
    """It holds a template or think token."""


@dataclass(frozen=True)
class VerdictRow:
    id: str
    created: str
    outcome: str
    candidate: str
    reason: str


class Store:
    """Every call is one transaction on its own connection, so threads share a store and a kill loses nothing whole.

    Answers belong to a session, in which every model is asked the same by the same code. Another one never sees them.
    """

    def __init__(self, path: Path):
        """Opens the file, or makes it, and brings an older format up to date.

        Raises ArtifactError for what is no store, or one of a newer format.
        """
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._connect() as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN IMMEDIATE")  # of several that open it at once, one migrates
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                for statements in _MIGRATIONS[version:]:
                    for statement in statements:
                        connection.execute(statement)
                if version < len(_MIGRATIONS):
                    connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        except sqlite3.DatabaseError as error:
            raise ArtifactError(f"{path}: not usable as the evaluator's store: {error}. Move it away.") from error
        if version > len(_MIGRATIONS):
            known = f"this version reads up to {len(_MIGRATIONS)}"
            raise ArtifactError(f"{path}: store format {version}, {known}. Update the program, or move the file away.")

    def session(self, question: str, max_age: float) -> str:
        """The id of what answers a question: the newest one younger than `max_age` seconds, or a new one.

        question: a hash of everything that the answer depends on.
        """
        now = time.time()
        with self._connect() as connection:
            row = connection.execute(
                "SELECT id FROM sessions WHERE question = ? AND begun > ? ORDER BY begun DESC LIMIT 1",
                (question, now - max_age),
            ).fetchone()
            if row:
                return str(row[0])
            id_ = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{question[:8]}"
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?)", (id_, question, now))
        return id_

    def add_answers(self, session: str, model: str, answers: Iterable[Answer]) -> None:
        rows = [(session, model, a.query, a.seed, a.grammar, a.text, a.tokens, a.ended, a.leaked) for a in answers]
        with self._connect() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO answers (session, model, query, seed, grammar, text, tokens, ended, leaked) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def answers(self, session: str, model: str) -> list[Answer]:
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT query, seed, grammar, text, tokens, ended, leaked FROM answers WHERE session = ? AND model = ?",
                (session, model),
            ).fetchall()
        return [
            Answer(q, seed, bool(g), text, n, bool(ended), bool(leaked)) for q, seed, g, text, n, ended, leaked in rows
        ]

    def add_latency(self, session: str, model: str, query: str, seconds: float) -> None:
        with self._connect() as connection:
            connection.execute("INSERT OR REPLACE INTO latencies VALUES (?, ?, ?, ?)", (session, model, query, seconds))

    def latencies(self, session: str, model: str) -> dict[str, float]:
        """Seconds an answer, by query."""
        with self._connect() as connection:
            return dict(
                connection.execute(
                    "SELECT query, seconds FROM latencies WHERE session = ? AND model = ?", (session, model)
                ).fetchall()
            )

    def add_evaluation(self, session: str, result: dict[str, Any]) -> None:
        """Keeps the figures of an evaluation, as JSON."""
        with self._connect() as connection:
            connection.execute("INSERT OR REPLACE INTO evaluations VALUES (?, ?)", (session, json.dumps(result)))

    def evaluation(self, session: str) -> dict[str, Any] | None:
        with self._connect() as connection:
            row = connection.execute("SELECT result FROM evaluations WHERE session = ?", (session,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def add_verdict(self, signed: SignedVerdict, report: str) -> None:
        """report: the page that explains the verdict, as HTML."""
        verdict = signed.verdict
        row = (verdict.id, verdict.created, verdict.outcome, verdict.candidate.reference, verdict.reasons[0])
        with self._connect() as connection:
            connection.execute(
                "INSERT INTO verdicts (id, created, outcome, candidate, reason, signed, report) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, signed.model_dump_json(), report),
            )

    def verdict(self, id_: str) -> SignedVerdict | None:
        with self._connect() as connection:
            row = connection.execute("SELECT signed FROM verdicts WHERE id = ?", (id_,)).fetchone()
        return SignedVerdict.model_validate_json(row[0]) if row else None

    def comparison(self, session: str) -> tuple[SignedVerdict, str] | None:
        """The verdict of a session and its page."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT signed, report FROM verdicts WHERE id = ? AND report IS NOT NULL", (session,)
            ).fetchone()
        return (SignedVerdict.model_validate_json(row[0]), str(row[1])) if row else None

    def verdicts(self, limit: int) -> list[VerdictRow]:
        """The newest first."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT id, created, outcome, candidate, reason FROM verdicts ORDER BY created DESC, id LIMIT ?",
                (limit,),
            ).fetchall()
        return [VerdictRow(*row) for row in rows]

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=60)
        try:
            with connection:
                yield connection
        finally:
            connection.close()
