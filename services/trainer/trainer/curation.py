"""What makes a training set worth training on: checks of its rows, and of the rows together.

Each check is a pure function that yields findings; nothing is written and nothing is raised.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from qmd_reward.rubric import RubricScore, score
from qmd_schema.contract import keeps, query_terms
from qmd_schema.examples import LoadedExample, TrainingExample
from qmd_schema.expansion import RENDER_ORDER, Line, contract_problems, split_only
from qmd_search.words import words
from trainer.config import CurationConfig, PrepareConfig
from trainer.dataset import EvalQuery, find_leaks
from trainer.personal_data import find_personal_data
from trainer.similarity import SimilarityIndex

FILLER_WORDS = frozenset(
    words("basics explained explanation guide information intro introduction overview resources tips tutorial")
)
"""Words of a lex line that no relevant document need hold, so they only make it match less."""
SLOT = "_"
"""Stands in a skeleton for words of the query."""

_LEX_TERM = re.compile(r'-?"[^"]*"?|\S+')
_MINIMUM_STEM = 3
"""Letters of a query word from which its longer forms are blanked too: `note` in `notes`."""


@dataclass(frozen=True)
class Finding:
    """Something to mend in a training set."""

    check: str
    path: Path
    line: int | None
    """From 1; None where the set as a whole is meant."""
    what: str
    remedy: str

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}" if self.line else str(self.path)

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.remedy}."


class Pair(NamedTuple):
    """Two queries of a set that are nearly one, by their numbers, the earlier first."""

    first: int
    second: int
    similarity: float


def check_training_set(
    examples: Sequence[LoadedExample], evaluation: Iterable[EvalQuery], config: PrepareConfig
) -> list[Finding]:
    """Every finding of every check, by file and line."""
    findings = [finding for loaded in examples for finding in check_row(loaded, config.curation)]
    findings += check_rubric(examples, config.curation)
    findings += check_near_duplicates(examples, config.curation.near_duplicate)
    findings += check_skeletons(examples, config.curation.skeleton_repeats)
    findings += check_leaks(examples, evaluation, config.near_duplicate)
    return sorted(findings, key=lambda finding: (str(finding.path), finding.line or 0))


def check_row(loaded: LoadedExample, config: CurationConfig) -> Iterator[Finding]:
    """Everything that can be said of a row without looking at others, its rubric score aside."""
    yield from check_contract(loaded)
    yield from _check_form(loaded, config)
    yield from _check_personal_data(loaded)


def check_contract(loaded: LoadedExample) -> Iterator[Finding]:
    """The rules of an expansion, and what QMD's filter would do to its lines."""
    query, expansion = loaded.example.query, loaded.example.expansion
    for problem in contract_problems(query, expansion):
        yield _finding(loaded, "contract", problem, "Write hyde first, then lex, then vec, as the query asks for them")
    for index, line in enumerate(expansion.lines):
        place = f"output[{index}]: {line.kind} line {line.text!r}"
        if line.text != line.text.strip():
            yield _finding(loaded, "contract", f"{place} is padded with blanks", "Remove them")
        if not keeps(query, line.text):
            yield _finding(
                loaded,
                "filter",
                f"{place} holds no word of the query {query!r}; QMD would drop it",
                f"Use one of: {', '.join(query_terms(query))}",
            )
        elif line.text == query:
            yield _finding(loaded, "filter", f"{place} is the query; QMD would drop it", "Say it in other words")


def check_rubric(examples: Sequence[LoadedExample], config: CurationConfig) -> Iterator[Finding]:
    """Rows below the floor, and the mean of the set."""
    scores = [score_row(loaded.example) for loaded in examples]
    for loaded, result in zip(examples, scores, strict=True):
        if result.percentage < config.rubric_minimum:
            reasons = " ".join(result.deductions).rstrip(".")
            what = f"rubric {result.percentage:.1f} %, wants {config.rubric_minimum:g} %: {reasons}"
            yield _finding(loaded, "rubric", what, "Mend what costs points (docs/scoring.md)")
    average = mean(result.percentage for result in scores)
    if average < config.rubric_mean:
        yield Finding(
            "rubric mean",
            _common_path(examples),
            None,
            f"the mean rubric percentage is {average:.2f}, wants {config.rubric_mean:g}",
            "`foundry data score` lists the worst rows",
        )


def check_near_duplicates(examples: Sequence[LoadedExample], threshold: float) -> Iterator[Finding]:
    """Queries that ask for what an earlier row asks for."""
    for first, second, similarity in near_duplicates([loaded.example.query for loaded in examples], threshold):
        earlier, later = examples[first], examples[second]
        yield _finding(
            later,
            "near-duplicate",
            f"query {later.example.query!r} is {similarity:.2f} similar to {earlier.example.query!r} "
            f"({earlier.where}), wants less than {threshold:g}",
            "Ask for something else, or remove one of the two",
        )


def check_skeletons(examples: Sequence[LoadedExample], repeats: int) -> Iterator[Finding]:
    """Texts that are a template filled in; each occurrence beyond the first `repeats`."""
    for skeleton, numbers in group_skeletons(examples).items():
        for number in numbers[repeats:]:
            yield _finding(
                examples[number],
                "skeleton",
                f"the skeleton {skeleton!r} occurs {len(numbers)} times (first {examples[numbers[0]].where}), "
                f"at most {repeats} are allowed",
                "Write this answer afresh",
            )


def check_leaks(
    examples: Sequence[LoadedExample], evaluation: Iterable[EvalQuery], threshold: float
) -> Iterator[Finding]:
    """Queries that a model is judged on, or nearly so."""
    for leak in find_leaks(examples, evaluation, threshold):
        what = str(leak).removeprefix(f"{leak.training.where}: ")
        yield _finding(leak.training, "leak", what, "Remove or reword the row; the evaluation query stays")


def score_row(example: TrainingExample) -> RubricScore:
    """The rubric's score of the answer as it is written down, in whatever order."""
    return score(example.query, "".join(f"{line.kind}: {line.text}\n" for line in example.expansion.lines))


def near_duplicates(queries: Sequence[str], threshold: float) -> list[Pair]:
    """Every pair of queries at least `threshold` alike, in (0, 1], by the number of the later one."""
    index = SimilarityIndex()
    pairs = []
    for number, query in enumerate(queries):
        alike = sorted(index.similar(query, threshold).items())
        pairs += [Pair(earlier, number, similarity) for earlier, similarity in alike]
        index.add(query)
    return pairs


def group_skeletons(examples: Iterable[LoadedExample]) -> dict[str, list[int]]:
    """Skeleton -> the numbers of the examples whose answers have it, most frequent first."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, loaded in enumerate(examples):
        for skeleton in sorted(skeletons(loaded.example.query, loaded.example.expansion.lines)):
            groups[skeleton].append(number)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def skeletons(query: str, lines: Iterable[Line]) -> set[str]:
    """What is left of an answer's texts when the query's words are blanked: `vec: how to clean _ at home`.

    One for the hyde line, one for each vec line, one for all lex lines, since short lines are alike by chance.
    A run of the query's words is one blank, case and punctuation do not count, a text of blanks alone has no skeleton.
    """
    words = set(_words(split_only(query)[0]))
    lines = list(lines)
    texts = [f"{line.kind}: {_blank(line.text, words)}" for line in lines if line.kind != "lex"]
    texts.append("lex: " + " | ".join(_blank(line.text, words) for line in lines if line.kind == "lex"))
    return {text for text in texts if set(_words(text.partition(":")[2])) - {SLOT}}


def _blank(text: str, query_words: set[str]) -> str:
    left: list[str] = []
    for word in _words(text):
        if not _is_from(word, query_words):
            left.append(word)
        elif left[-1:] != [SLOT]:
            left.append(SLOT)
    return " ".join(left)


def _is_from(word: str, query_words: set[str]) -> bool:
    return word in query_words or any(
        len(query_word) >= _MINIMUM_STEM and word.startswith(query_word) for query_word in query_words
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _check_form(loaded: LoadedExample, config: CurationConfig) -> Iterator[Finding]:
    query, expansion = loaded.example.query, loaded.example.expansion
    only = split_only(query)[1]
    for kind in RENDER_ORDER:
        lines = expansion.of_kind(kind)
        if kind != "hyde" and only in (None, kind) and 0 < len(lines) < config.minimum_lines:
            what = f"{len(lines)} {kind} line, wants {config.minimum_lines} to 3"
            yield _finding(loaded, "lines", what, f"Add a {kind} line that finds what the first does not")
    for text in expansion.hyde:
        if not config.hyde_minimum <= len(text) <= config.hyde_maximum:
            what = f"the hyde line has {len(text)} characters, wants {config.hyde_minimum} to {config.hyde_maximum}"
            yield _finding(loaded, "hyde length", what, "Write a passage with the facts that a real note would hold")
    first_words = [_words(text)[:1] for text in expansion.lex]
    for number, text in enumerate(expansion.lex):
        if first_words[number] in first_words[:number]:
            what = f"lex line {text!r} begins like an earlier one, which a small model learns to repeat to the end"
            yield _finding(loaded, "lex beginnings", what, "Turn its words round, or begin with another word")
        terms = [term for term in _LEX_TERM.findall(text) if not term.startswith("-")]
        if len(terms) > config.lex_words:
            what = f"lex line {text!r} asks for {len(terms)} words in one document, wants at most {config.lex_words}"
            yield _finding(loaded, "lex words", what, "Keep the two most telling words, or quote what is one term")
        if filler := (FILLER_WORDS & set(_words(text))) - set(_words(query)):
            what = f"lex line {text!r} holds filler: {', '.join(sorted(filler))}"
            yield _finding(loaded, "filler", what, "Use a word that a relevant document must hold")


def _check_personal_data(loaded: LoadedExample) -> Iterator[Finding]:
    texts: list[tuple[str, str]] = [("query", loaded.example.query), *loaded.example.expansion.lines]
    for place, text in texts:
        for kind, found in find_personal_data(text):
            what = f"the {place} holds what looks like a {kind}: {found!r}"
            yield _finding(loaded, "personal data", what, "Leave it out, or use one made for examples (@example.com)")


def _finding(loaded: LoadedExample, check: str, what: str, remedy: str) -> Finding:
    return Finding(check, loaded.path, loaded.line, what, remedy)


def _common_path(examples: Sequence[LoadedExample]) -> Path:
    """The file all examples are from, or the folder of the first."""
    paths = {loaded.path for loaded in examples}
    return paths.pop() if len(paths) == 1 else examples[0].path.parent
