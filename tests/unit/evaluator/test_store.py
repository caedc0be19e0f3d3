import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from evaluator import store as store_module
from evaluator.store import Answer, Store
from qmd_schema.errors import ArtifactError


def answer(query: str, seed: int = 1, grammar: bool = True, text: str = "lex: tea\n") -> Answer:
    return Answer(query, seed, grammar, text, tokens=5, ended=True, leaked=False)


def test_answers_come_back_as_they_were_given(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    answers = [answer("a"), answer("a", seed=2), answer("a", grammar=False, text="tea\u2028☕ \x00"), answer("b")]
    store.add_answers("session", "model", answers)
    assert sorted(Store(tmp_path / "store.sqlite").answers("session", "model"), key=str) == sorted(answers, key=str)


def test_answers_belong_to_their_session_and_model(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    store.add_answers("one", "model", [answer("a")])
    assert store.answers("other", "model") == store.answers("one", "other") == []


def test_the_same_question_goes_on_in_its_session_until_that_is_too_old(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    first = store.session("question", max_age=3600)
    assert store.session("question", max_age=3600) == first
    assert store.session("other question", max_age=3600) != first


def test_a_session_too_old_is_not_gone_on_with(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    first = store.session("question", max_age=3600)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute("UPDATE sessions SET begun = begun - 7200, id = id || '-old'")
    assert store.session("question", max_age=3600) != f"{first}-old"


def test_latencies_are_kept_by_query(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    store.add_latency("session", "model", "a", 1.5)
    store.add_latency("session", "model", "b", 0.5)
    assert store.latencies("session", "model") == {"a": 1.5, "b": 0.5}


def test_threads_share_a_store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    threads = [
        threading.Thread(target=store.add_answers, args=("s", "m", [answer(f"{t}-{i}") for i in range(50)]))
        for t in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.answers("s", "m")) == 400


WRITER = """
import json, pathlib, sys
from evaluator.store import Answer, Store
store, run = Store(pathlib.Path(sys.argv[1])), sys.argv[2]
for i in range(10**6):
    store.add_answers("s", "m", [Answer(f"{run}-{i}-{j}", 1, True, "lex: tea" * 50, 5, True, False) for j in range(20)])
    store.add_latency("s", "m", f"{run}-{i}", 0.5)
    store.add_evaluation(f"{run}-{i}", {"figures": [i] * 200})
    print(i, flush=True)
"""


def test_kills_at_random_moments_lose_nothing_that_was_added_and_break_nothing_in_two(tmp_path):
    path = tmp_path / "store.sqlite"
    moments = random.Random(0)
    for run in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(run)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        done = 1 + process.stdout.read().count("\n")
        process.wait()

        store = Store(path)
        kept = {a.query for a in store.answers("s", "m") if a.query.startswith(f"{run}-")}
        assert kept >= {f"{run}-{i}-{j}" for i in range(done) for j in range(20)}
        assert len(kept) % 20 == 0
        assert store.latencies("s", "m").keys() >= {f"{run}-{i}" for i in range(done)}
        assert all(store.evaluation(f"{run}-{i}") == {"figures": [i] * 200} for i in range(done))
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


FIRST_FORMAT = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, question TEXT NOT NULL, begun REAL NOT NULL);
CREATE TABLE answers (
    session TEXT, model TEXT, query TEXT, seed INTEGER, grammar INTEGER,
    text TEXT NOT NULL, tokens INTEGER NOT NULL, ended INTEGER NOT NULL, leaked INTEGER NOT NULL,
    PRIMARY KEY (session, model, grammar, seed, query)
) WITHOUT ROWID;
CREATE TABLE latencies (
    session TEXT, model TEXT, query TEXT, seconds REAL NOT NULL, PRIMARY KEY (session, model, query)
) WITHOUT ROWID;
CREATE TABLE verdicts (
    id TEXT PRIMARY KEY, created TEXT NOT NULL, outcome TEXT NOT NULL, candidate TEXT NOT NULL, reason TEXT NOT NULL,
    signed TEXT NOT NULL
);
INSERT INTO answers VALUES ('s', 'm', 'a', 1, 1, 'lex: tea', 5, 1, 0);
INSERT INTO verdicts VALUES ('v1', '2026-01-01T00:00:00+00:00', 'FAIL', '/models/c', 'It lost.', '{}');
PRAGMA user_version = 1;
"""


def test_a_store_of_an_older_format_is_brought_up_to_date_with_all_it_holds(tmp_path):
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST_FORMAT)
    stores = [Store(path) for _ in range(2)]
    assert [a.query for a in stores[1].answers("s", "m")] == ["a"]
    assert [(row.id, row.outcome) for row in stores[1].verdicts(5)] == [("v1", "FAIL")]
    stores[0].add_evaluation("s", {"figures": {}})
    assert stores[1].evaluation("s") == {"figures": {}} and stores[1].evaluation("t") is None
    assert stores[1].comparison("v1") is None


def test_a_migration_that_breaks_off_leaves_the_older_store_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST_FORMAT)
    broken = (*store_module._MIGRATIONS[:-1], (*store_module._MIGRATIONS[-1], "CREATE TABLE nonsense"))
    with monkeypatch.context() as patch, pytest.raises(ArtifactError, match="not usable"):
        patch.setattr(store_module, "_MIGRATIONS", broken)
        Store(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'evaluations'").fetchall() == []
    assert Store(path).verdicts(5)


def test_several_that_open_a_new_store_at_once_make_one(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        stores = list(threads.map(Store, [tmp_path / "store.sqlite"] * 8))
    stores[0].add_latency("s", "m", "a", 1.0)
    assert stores[7].latencies("s", "m") == {"a": 1.0}


def test_a_disk_that_is_full_is_an_error_and_loses_nothing(tmp_path):
    """A limit on the size of files stands for the disk, as it fails the same writes."""
    path = tmp_path / "store.sqlite"
    full = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    full += "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))"
    done = subprocess.run([sys.executable, "-c", full + WRITER, str(path), "0"], capture_output=True, text=True)
    assert done.returncode == 1 and "sqlite3.OperationalError" in done.stderr
    batches = done.stdout.count("\n")
    kept = {a.query for a in Store(path).answers("s", "m")}
    assert batches > 5 and kept >= {f"0-{i}-{j}" for i in range(batches) for j in range(20)}


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "store.sqlite"
    path.write_text("no database, but somebody's notes; " * 100)
    with pytest.raises(ArtifactError, match=r"store\.sqlite: not usable"):
        Store(path)
    assert path.read_text().startswith("no database")


def test_a_store_of_another_format_is_refused(tmp_path):
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ArtifactError, match="store format 99"):
        Store(path)
