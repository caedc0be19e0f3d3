"""An expansion: the `hyde:`, `lex:` and `vec:` lines a model writes for a query."""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Kind = Literal["lex", "vec", "hyde"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RENDER_ORDER: tuple[Kind, ...] = ("hyde", "lex", "vec")
MAX_LINES: dict[Kind, int] = {"hyde": 1, "lex": 3, "vec": 3}

_ONLY_SUFFIX = re.compile(r"\s+/only:(lex|vec|hyde)\s*$", re.IGNORECASE)


class Line(NamedTuple):
    """One line of an expansion: its kind and its text, without prefix or newline."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Expansion:
    """The lines of an expansion, in the order they were written."""

    lines: tuple[Line, ...]

    def of_kind(self, kind: Kind) -> tuple[str, ...]:
        return tuple(line.text for line in self.lines if line.kind == kind)

    @property
    def lex(self) -> tuple[str, ...]:
        return self.of_kind("lex")

    @property
    def vec(self) -> tuple[str, ...]:
        return self.of_kind("vec")

    @property
    def hyde(self) -> tuple[str, ...]:
        return self.of_kind("hyde")


@dataclass(frozen=True)
class ParsedExpansion:
    """What a text holds: the lines that could be read, and what was wrong with it."""

    expansion: Expansion
    problems: tuple[str, ...]


def split_only(query: str) -> tuple[str, Kind | None]:
    """Splits a query's `/only:KIND` ending off: ("tea /only:lex") gives ("tea", "lex")."""
    match = _ONLY_SUFFIX.search(query)
    if match is None:
        return query, None
    kind: Kind = match.group(1).lower()  # type: ignore[assignment]
    return query[: match.start()], kind


def parse(text: str) -> ParsedExpansion:
    """Reads what a model wrote, line by line, and never raises.

    Each line is cut at its first colon, as QMD cuts it. A line without a known kind or without text is left
    out and named in `problems`, as is a last line that does not end in a newline. Only `\\n` ends a line.
    """
    lines: list[Line] = []
    problems: list[str] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        head, colon, body = raw.partition(":")
        kind = head.strip()
        if not colon or kind not in KINDS:
            problems.append(f"line {number}: starts with none of lex:, vec:, hyde:")
        elif not body.strip():
            problems.append(f"line {number}: {kind} has no text")
        else:
            lines.append(Line(kind, body.strip()))
    if not lines:
        problems.append("no line could be read")
    if text and not text.endswith("\n"):
        problems.append("the text does not end in a newline")
    return ParsedExpansion(Expansion(tuple(lines)), tuple(problems))


def contract_problems(query: str, expansion: Expansion) -> list[str]:
    """What keeps an expansion from being one that `render` would write; empty when it keeps every rule.

    Rules: hyde first and exactly one, 1-3 lex, 1-3 vec; for a query that ends in `/only:KIND`, only lines
    of that kind; no line twice.
    """
    _, only = split_only(query)
    problems = []
    kinds = [line.kind for line in expansion.lines]
    for kind in RENDER_ORDER:
        wanted = only is None or kind == only
        count = kinds.count(kind)
        if not wanted and count:
            problems.append(f"{kind} line in a /only:{only} expansion")
        if wanted and not 1 <= count <= MAX_LINES[kind]:
            problems.append(f"{count} {kind} lines, wants 1 to {MAX_LINES[kind]}")
    if "hyde" in kinds and kinds[0] != "hyde":
        problems.append("hyde is not first")
    if len(set(expansion.lines)) < len(expansion.lines):
        problems.append("a line is repeated")
    return problems


def keeps_rules(query: str, answer: str) -> bool:
    """Whether a model's answer can be read without a problem and keeps every rule of `contract_problems`."""
    parsed = parse(answer)
    return not parsed.problems and not contract_problems(query, parsed.expansion)


def render(query: str, expansion: Expansion) -> str:
    """The text a model is trained to write: hyde, then lex, then vec, each line ended by a newline.

    Raises ValueError when the expansion breaks a rule of `contract_problems` in any order of its lines.
    """
    ordered = Expansion(tuple(sorted(expansion.lines, key=lambda line: RENDER_ORDER.index(line.kind))))
    problems = contract_problems(query, ordered)
    for line in ordered.lines:
        if line.text != line.text.strip() or not line.text or "\n" in line.text:
            problems.append(f"{line.kind} text {line.text!r} is empty, padded or more than one line")
    if problems:
        raise ValueError(f"expansion of {query!r}: {'; '.join(problems)}")
    return "".join(f"{line.kind}: {line.text}\n" for line in ordered.lines)
