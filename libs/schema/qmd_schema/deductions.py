"""Why an expansion lost points: typed, for programs; as a sentence, for people."""

from typing import Literal, NamedTuple

from qmd_schema.expansion import Kind

Reason = Literal[
    "chat_marker_left",
    "line_without_kind",
    "wanted_kind_missing",
    "kind_missing",
    "unwanted_kind",
    "not_complementary",
    "lines_alike",
    "query_repeated",
    "percentage_capped",
    "hyde_length",
    "lex_longer_than_vec",
    "key_terms_lost",
    "filler",
    "vec_too_short",
    "no_line_with_entity",
    "entities_lost",
    "generic_lines",
]

_SENTENCES: dict[Reason, str] = {
    "chat_marker_left": "A chat marker or a further turn is left in the text.",
    "line_without_kind": "Line {lines} begins with none of lex:, vec:, hyde:.",
    "wanted_kind_missing": "There is no {kind} line, and the query asks for nothing else.",
    "kind_missing": "There is no {kind} line.",
    "unwanted_kind": "The query asks for {kind} lines only, and {number} are of another kind.",
    "not_complementary": "Lex and vec lines do not complement each other: one kind is missing.",
    "lines_alike": "{kind} lines {lines} are too much alike.",
    "query_repeated": "{kind} line {lines} repeats the query.",
    "percentage_capped": "A lex line repeats the query, so the percentage is capped at {number}.",
    "hyde_length": "The hyde line has {number} characters; 50 to 200 are best.",
    "lex_longer_than_vec": "Lex lines are longer than vec lines on average.",
    "key_terms_lost": "No lex line holds a key term of the query.",
    "filler": "Filler in lex lines: {texts}.",
    "vec_too_short": "A vec line is a single word or has under 16 characters.",
    "no_line_with_entity": "No {kind} line names an entity of the query.",
    "entities_lost": "Neither lex nor vec lines name {texts}.",
    "generic_lines": "Lex lines that say nothing of the subject: {texts}.",
}


class Deduction(NamedTuple):
    """One reason for lost points; `str()` makes a sentence of it. Which fields it fills depends on the reason."""

    reason: Reason
    kind: Kind | None = None
    """The kind of line that is meant, where one is."""
    lines: tuple[int, ...] = ()
    """Numbers of the lines meant, from 1: among those of `kind`, or in the whole text where there is no kind."""
    number: int = 0
    """Characters of a hyde line, lines of other kinds, or the percentage of the cap."""
    texts: tuple[str, ...] = ()
    """The words or lines meant."""

    def __str__(self) -> str:
        return _SENTENCES[self.reason].format(
            kind=self.kind,
            lines=" and ".join(map(str, self.lines)),
            number=self.number,
            texts=", ".join(self.texts),
        )
