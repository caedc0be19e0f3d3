"""What a document could be asked for: its headings, the terms it defines, the phrases that tell what it is about."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log
from typing import Literal, NamedTuple, get_args

from qmd_search.collections import Document
from qmd_search.words import content_words, is_stop_word, words
from trainer.markdown import headings, prose
from trainer.similarity import normalise

QueryKind = Literal["definition", "heading", "phrase"]
KINDS: tuple[QueryKind, ...] = get_args(QueryKind)

ANSWERS, RELATED = 2, 1
"""Judgements: the document answers the query; it holds the words of it."""
MAX_HOLDERS = 3
"""Documents that may hold a heading or phrase; one that more of them hold picks none out."""
HEADING_WORDS = (2, 10)
PHRASE_WORDS = (2, 3)
TERM_WORDS = 4
RECURS = 2
"""Occurrences in a document from which a word or phrase is one of its subjects."""

_SEGMENT_END = re.compile(r"[^\w\s'’-]|\s[-–]+\s")
_BETWEEN_WORDS = re.compile(r"(?<=\s)[^\w\s]+(?=[\s\w])|[^\w\s+#]+(?=\s)|[\"“”()\[\]]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_DEFINITION = re.compile(
    r"(?:(?:the|a|an)\s+)?(?P<term>[^\W_][\w '’/+.-]*?)\s+"
    r"(?:(?P<be>is|are)\s+(?:an?|any|one of)\b|(?P<verb>means|stands for|refers to)\b)",
    re.IGNORECASE,
)
_QUESTIONS = {
    "is": "what is {}",
    "are": "what are {}",
    "means": "what does {} mean",
    "stands for": "what does {} stand for",
    "refers to": "what does {} refer to",
}
_JOINING = frozenset({"and", "for", "of"})
_NO_TERMS = frozenset(
    words(
        """
    advantage aim answer bottom cause case catch choice conclusion downside effect exception fact first future goal
    idea issue it key last lesson next plan point problem question reason rest result second solution step thing third
    today tomorrow top trick upside way winner yesterday
    """
    )
)
"""Words of sentences such as "the result is a mess", that define nothing."""


class Candidate(NamedTuple):
    """A query that a document could be asked for."""

    kind: QueryKind
    text: str
    judgements: Mapping[str, int]
    """Document id -> ANSWERS or RELATED."""


def find_known_items(documents: Sequence[Document]) -> Iterator[tuple[Document, dict[QueryKind, list[Candidate]]]]:
    """Each document with what could be asked for, its phrases the most telling first."""
    heads = {document.id: list(dict.fromkeys([document.title, *headings(document.text)])) for document in documents}
    texts = {document.id: prose(document.text) for document in documents}
    counts = {id_: Counter(content_words(" ".join([*heads[id_], *texts[id_]]))) for id_ in texts}
    questions = {id_: list(_questions(texts[id_], counts[id_])) for id_ in texts}
    phrases = {id_: _phrases(paragraphs) for id_, paragraphs in texts.items()}
    of_heading = _holders({id_: map(normalise, found) for id_, found in heads.items()})
    of_question = _holders({id_: map(normalise, found) for id_, found in questions.items()})
    of_phrase, of_word = _holders(phrases), _holders(counts)
    rarity = {word: log(len(documents) / len(holders)) for word, holders in of_word.items()}
    for document in documents:
        id_ = document.id
        yield (
            document,
            {
                "definition": [
                    Candidate("definition", question, dict.fromkeys(holders, ANSWERS))
                    for question in questions[id_]
                    if len(holders := of_question[normalise(question)]) <= MAX_HOLDERS
                ],
                "heading": [
                    Candidate("heading", _as_typed(head), dict.fromkeys(holders, ANSWERS))
                    for head in heads[id_]
                    if len(holders := of_heading[normalise(head)]) <= MAX_HOLDERS and _is_telling(head)
                ],
                "phrase": [
                    Candidate("phrase", phrase, {id_: ANSWERS} | dict.fromkeys(of_phrase[phrase] - {id_}, RELATED))
                    for phrase in _telling_phrases(phrases[id_], of_phrase, counts[id_], rarity)
                ],
            },
        )


def _holders(found: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Text -> ids of the documents that hold it."""
    holders: dict[str, set[str]] = defaultdict(set)
    for id_, texts in found.items():
        for text in texts:
            holders[text].add(id_)
    return holders


def _is_telling(heading: str) -> bool:
    low, high = HEADING_WORDS
    return low <= len(words(heading)) <= high and len(set(content_words(heading))) >= low


def _questions(paragraphs: Iterable[str], counts: Mapping[str, int]) -> Iterator[str]:
    """Questions that sentences such as "A tensiometer is a …" answer, where the text comes back to the term.

    counts: occurrences of each content word in the document.
    """
    for sentence in (sentence for paragraph in paragraphs for sentence in _SENTENCE_END.split(paragraph)):
        match = _DEFINITION.match(sentence)
        term = words(match["term"]) if match else []
        is_term = len(term) <= TERM_WORDS and all(_is_content(word) and counts[word.lower()] >= RECURS for word in term)
        if match and is_term and _NO_TERMS.isdisjoint(map(str.lower, term)):
            yield _QUESTIONS[(match["be"] or match["verb"]).lower()].format(_as_typed(match["term"]))


def _phrases(paragraphs: Iterable[str]) -> Counter[str]:
    """Every run of two or three words that could be a term, as it is typed, with its occurrences."""
    found: Counter[str] = Counter()
    for run in (words(segment) for paragraph in paragraphs for segment in _SEGMENT_END.split(paragraph)):
        for size in PHRASE_WORDS:
            for start in range(len(run) - size + 1):
                first, *inner, last = run[start : start + size]
                joined = all(_is_content(word) or word.lower() in _JOINING for word in inner)
                if joined and _is_content(first) and _is_content(last):
                    found[_as_typed(" ".join([first, *inner, last]))] += 1
    return found


def _is_content(word: str) -> bool:
    return len(word) > 2 and not word[0].isdigit() and not is_stop_word(word)


def _telling_phrases(
    phrases: Mapping[str, int],
    holders: Mapping[str, set[str]],
    counts: Mapping[str, int],
    rarity: Mapping[str, float],
) -> Iterator[str]:
    """The phrases that tell what a document is about, the most telling first, no two with a word in common.

    Either the phrase comes back in the document or each of its words does. Those that the fewest documents hold are
    first; then those that come back most, whole ones before parts of them; then those whose words are this
    document's: their occurrences times their rarity.

    counts: occurrences of each content word in the document. rarity: log(documents / documents that hold the word).
    """

    def rank(phrase: str) -> tuple[int, int, int, float, str]:
        own = content_words(phrase)
        size = len(own) if phrases[phrase] >= RECURS else 0
        weight = sum(counts[word] * rarity.get(word, 0.0) for word in own) / max(1, len(own))
        return len(holders[phrase]), -phrases[phrase], -size, -weight, phrase

    usable = [
        phrase
        for phrase, count in phrases.items()
        if len(holders[phrase]) <= MAX_HOLDERS
        and (count >= RECURS or all(counts[word] >= RECURS for word in content_words(phrase)))
    ]
    taken: set[str] = set()
    for phrase in sorted(usable, key=rank):
        own = set(content_words(phrase))
        if own.isdisjoint(taken):
            taken |= own
            yield phrase


def _as_typed(text: str) -> str:
    """As people type: no punctuation between words, lower case but for words such as LoRaWAN and API."""
    typed = _BETWEEN_WORDS.sub(" ", f" {text} ").split()
    return " ".join(word if any(letter.isupper() for letter in word[1:]) else word.lower() for word in typed)
