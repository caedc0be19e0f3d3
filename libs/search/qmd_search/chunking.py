"""Cuts documents into chunks for embedding, where QMD cuts them."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable

CHUNK_TOKENS = 900
SIZE, OVERLAP, WINDOW = 2700, 405, 600
"""QMD's 900, 135 and 200 tokens, at three UTF-16 units a token. JavaScript counts in these, so all here does too."""

# How good a place to cut is, by what begins there; the best that fits a place counts.
_BREAKS = (
    (re.compile(r"\n#(?!#)"), 100),
    (re.compile(r"\n##(?!#)"), 90),
    (re.compile(r"\n###(?!#)"), 80),
    (re.compile(r"\n```"), 80),
    (re.compile(r"\n####(?!#)"), 70),
    (re.compile(r"\n#####(?!#)"), 60),
    (re.compile(r"\n(?:---|\*\*\*|___)\s*\n"), 60),
    (re.compile(r"\n######(?!#)"), 50),
    (re.compile(r"\n\n+"), 20),
    (re.compile(r"\n[-*]\s"), 5),
    (re.compile(r"\n[0-9]+\.\s"), 5),
    (re.compile(r"\n"), 1),
)
_FENCE = re.compile(r"\n```")


def chunk(text: str, count_tokens: Callable[[str], int]) -> list[str]:
    """The chunks of a text, in order: at most 900 tokens each, overlapping, cut at headings where one is near.

    The text is cut at 2,700 characters a chunk first, with an overlap of 405, looking back up to 600 characters for
    the best place. A chunk of more than 900 tokens is then cut again by its own ratio of characters to tokens.
    """
    units = _as_units(text)
    pieces = split(units, SIZE, OVERLAP, WINDOW)
    return [_as_text(part) for piece in pieces for part in _within_limit(piece, count_tokens)]


def _within_limit(text: str, count_tokens: Callable[[str], int]) -> list[str]:
    # A token is at least one byte, so of a short text there is nothing to count.
    if len(text.encode("utf-8", "surrogatepass")) <= CHUNK_TOKENS:
        return [text]
    tokens = count_tokens(_as_text(text))
    if tokens <= CHUNK_TOKENS or len(text) == 1:
        return [text]
    ratio = len(text) / tokens
    size = max(1, min(len(text) - 1, int(CHUNK_TOKENS * ratio * 0.95)))
    pieces = split(text, size, min(size - 1, int(OVERLAP * ratio / 2)), int(WINDOW * ratio / 2))
    return [part for piece in pieces for part in _within_limit(piece, count_tokens)]


def split(text: str, size: int, overlap: int, window: int) -> list[str]:
    """Cuts a text into overlapping pieces of at most `size` characters, looking back `window` for a good place.

    overlap, window: characters, less than `size`. A pair of surrogates is never cut in two.
    """
    if len(text) <= size:
        return [text]
    places, scores = _break_places(text)
    pieces: list[str] = []
    start = 0
    while (target := start + size) < len(text):
        end = _around_pair(text, _best_place(places, scores, target, window), start)
        pieces.append(text[start:end])
        if end == len(text):
            return pieces
        start = _around_pair(text, end - overlap if end - overlap > start else end, start)
    return [*pieces, text[start:]]


def _as_units(text: str) -> str:
    """The text with a pair of surrogates for each character that UTF-16 writes as two units."""
    if max(text, default="") <= "\uffff":
        return text
    units = text.encode("utf-16-le", "surrogatepass")
    return "".join(map(chr, memoryview(units).cast("H")))


def _as_text(units: str) -> str:
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _around_pair(units: str, place: int, floor: int) -> int:
    """The place, or the one before it where it lies inside a pair of surrogates; the one behind if that is too low."""
    inside = "\ud800" <= units[place - 1] <= "\udbff" and "\udc00" <= units[place : place + 1] <= "\udfff"
    if not inside:
        return place
    return place - 1 if place - 1 > floor else place + 1


def _break_places(text: str) -> tuple[list[int], list[int]]:
    """Where the text may be cut, ascending and outside code fences, and how good each place is."""
    best: dict[int, int] = {}
    for pattern, score in _BREAKS:
        for match in pattern.finditer(text):
            best[match.start()] = max(score, best.get(match.start(), 0))
    marks = [match.start() for match in _FENCE.finditer(text)]
    closings = [mark + len("\n```") for mark in marks[1::2]]
    if len(marks) % 2:
        closings.append(len(text))
    fences = list(zip(marks[::2], closings, strict=True))
    places = sorted(place for place in best if not any(first < place < last for first, last in fences))
    return places, [best[place] for place in places]


def _best_place(places: list[int], scores: list[int], target: int, window: int) -> int:
    """The best place in [target - window, target]: a score loses up to 70 % with the square of the distance."""
    best, best_score = target, 0.0
    for index in range(bisect_left(places, target - window), bisect_right(places, target)):
        distance = (target - places[index]) / window if window else 0.0
        score = scores[index] * (1 - 0.7 * distance**2)
        if score > best_score:
            best, best_score = places[index], score
    return best
