"""`foundry data lint`, `report` and `synth`, as a user calls them."""

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qmd_schema.examples import LoadedExample, TrainingExample
from trainer.config import PrepareConfig

GOOD = {
    "query": "rotate Nginx logs",
    "output": [
        ["hyde", "To rotate Nginx logs put daily, rotate 14 and compress into /etc/logrotate.d/nginx and signal USR1."],
        ["lex", "Nginx logrotate"],
        ["lex", "postrotate Nginx"],
        ["vec", "set up daily log rotation for an Nginx server"],
        ["vec", "keep the access logs of Nginx from filling the disk"],
    ],
    "category": "how_to",
}
VOID = {"meta", "rect", "line", "br"}


class TagBalance(HTMLParser):
    """Raises where a tag is closed that is not open, and keeps the addresses that the page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def foundry(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "foundry", "data", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A folder with the project's configs, one good row and one evaluation query."""
    shutil.copytree(root / "configs", tmp_path / "configs")
    (tmp_path / "data").mkdir()
    (tmp_path / "evals").mkdir()
    (tmp_path / "data/rows.jsonl").write_text(json.dumps(GOOD) + "\n")
    (tmp_path / "evals/queries.jsonl").write_text('{"id": "1", "query": "zeppelin mooring", "slice": "short"}\n')
    return tmp_path


def add(project: Path, **changes: object) -> None:
    with (project / "data/rows.jsonl").open("a") as file:
        file.write(json.dumps({**GOOD, **changes}) + "\n")


def loaded(line: int, query: str = "rotate Nginx logs", **changes: object) -> LoadedExample:
    output = [tuple(pair) for pair in changes.pop("output", GOOD["output"])]
    return LoadedExample(TrainingExample(query=query, output=output, **changes), Path("data/rows.jsonl"), line)


def test_a_good_set_has_nothing_to_mend(project: Path) -> None:
    done = foundry("lint", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to mend" in done.stdout


def test_findings_are_listed_with_line_and_remedy(project: Path) -> None:
    add(project, query="zeppelin mooring", category="short")
    done = foundry("lint", cwd=project)
    assert done.returncode == 2
    assert "data/rows.jsonl:2: query 'zeppelin mooring' is the same as" in done.stderr
    assert "Remove or reword the row" in done.stderr
    assert "findings in 2 rows:" in done.stderr


def test_findings_are_given_as_json_too(project: Path) -> None:
    add(project, query="rotate Nginx logs!")
    done = foundry("lint", "data/rows.jsonl", "--json", cwd=project)
    assert done.returncode == 2
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["check"], finding["path"], finding["line"]) == ("near-duplicate", "data/rows.jsonl", 2)
    assert finding["remedy"]


def test_thresholds_come_from_the_profile(project: Path) -> None:
    with (project / "configs/cpu/prepare.yaml").open("a") as file:
        file.write("curation: {hyde_minimum: 150}\n")
    done = foundry("lint", cwd=project)
    assert done.returncode == 2
    assert "the hyde line has 99 characters, wants 150 to 200" in done.stderr


def test_a_row_that_cannot_be_read_is_named_first(project: Path) -> None:
    add(project, output=[["lexx", "tea"]])
    done = foundry("lint", cwd=project)
    assert done.returncode == 2
    assert 'data/rows.jsonl:2: output[0]: kind "lexx" is none of lex, vec, hyde' in done.stderr


def test_the_report_is_one_page_that_loads_nothing(project: Path) -> None:
    add(project, query="rotating <b>Nginx</b> logs", category="short")
    done = foundry("report", "--output", "out/data.html", cwd=project)
    assert done.returncode == 0, done.stderr
    page = (project / "out/data.html").read_text()
    balance = TagBalance()
    balance.feed(page)
    assert balance.open == []
    assert balance.addresses == []
    assert "rotating &lt;b&gt;Nginx" in page
    assert "prefers-color-scheme: dark" in page


def test_the_report_shows_slices_clusters_skeletons_and_the_worst_rows() -> None:
    from foundry.data_report import render_data_report

    rows = [
        loaded(1, category="how_to"),
        loaded(2, "rotate Nginx logs!", category="short"),
        loaded(3, "tea", output=[("hyde", "Tea."), ("lex", "tea tips"), ("vec", "tea")]),
    ]
    page = render_data_report(rows, [], PrepareConfig(model="m"))
    for text in ("how_to", "short", "other", "2 queries like “rotate Nginx logs”", "hyde: to _ put daily"):
        assert text in page
    first_worst = page.partition("rows with the lowest score")[2].partition("</summary>")[0]
    assert "“tea”" in first_worst and "data/rows.jsonl:3" in first_worst


def test_a_report_of_one_row_can_be_drawn() -> None:
    from foundry.data_report import render_data_report

    page = render_data_report([loaded(1)], [], PrepareConfig(model="m"))
    assert "Every check of" in page


def test_synth_says_what_it_made_and_where(project: Path) -> None:
    notes = project / "notes"
    notes.mkdir()
    (notes / "bread.md").write_text("# Sunday bread rolls\n\nFold the rye dough. Rye dough is sticky.\n")
    (notes / "mooring.md").write_text("# Zeppelin mooring\n\nMast.\n")
    arguments = ("synth", "--collection", "notes", "--output", "made")
    done = foundry(*arguments, cwd=project)
    assert done.returncode == 0, done.stderr
    assert "rye dough" in done.stdout and "1 like an evaluation query" in " ".join(done.stdout.split())
    report = json.loads(foundry(*arguments, "--json", cwd=project).stdout)
    assert report == json.loads((project / "made/report.json").read_text())
    assert report["queries"] == {"definition": 0, "heading": 1, "phrase": 1}
