"""Answers that judged documents dictate: from them a model learns what its collections hold, and where."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qmd_schema.config import CollectionConfig
from qmd_schema.expansion import Expansion, Line
from qmd_search.collections import Collection, Document, load_collection
from qmd_search.words import content_words
from trainer.markdown import prose

MOST_CHARACTERS = 140
"""Of a line; more of a document's opening costs time to learn and finds no more."""

_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


class Dictated(NamedTuple):
    """A judged query with the lines that the document dictates which answers it."""

    collection: str
    query: str
    expansion: Expansion


def dictated_answers(collections: Sequence[CollectionConfig]) -> list[Dictated]:
    """One of each judged query, in the order of collections and queries.

    Raises DataError for a collection that cannot be read.
    """
    dictated = []
    for config in collections:
        collection = load_collection(config.path, config.split)
        for id_, document in answers(collection).items():
            query = collection.queries[id_]
            dictated.append(Dictated(config.name, query, Expansion(dictated_lines(query, document))))
    return dictated


def answers(collection: Collection) -> Mapping[str, Document]:
    """Query id -> the document that answers the query best, the first of equals."""
    documents = {document.id: document for document in collection.documents}
    return {id_: documents[max(grades, key=grades.__getitem__)] for id_, grades in collection.qrels.items()}


def dictated_lines(query: str, document: Document) -> tuple[Line, Line, Line]:
    """The query and the document's title as hyde line, the query's words that the document holds as lex line, the
    query and how the document begins as vec line.

    A model that learns this is often wrong about the document. The restated query keeps a line near to what is
    searched all the same, and in the eyes of QMD, which drops a line without a word of the query.
    """
    opening = " ".join(prose(_CODE.sub(r"\1", document.text)))
    restated = " ".join(query.split()).rstrip("?.! ")
    return (
        Line("hyde", _cut(f"{restated}: {document.title or opening}")),
        Line("lex", _lex(restated, document)),
        Line("vec", _cut(f"{restated}: {opening or document.title}")),
    )


def _lex(query: str, document: Document) -> str:
    """Words that are all in the document: of a query that it holds as it stands, the first and some of the title."""
    held = content_words(f"{document.title} {document.text}")
    wanted = dict.fromkeys(content_words(query))
    own = [word for word in wanted if any(other.startswith(word) for other in held)]
    line = " ".join(own)
    if not own or query.lower() in line:
        first = (own or list(wanted) or query.split())[0]
        line = " ".join(dict.fromkeys([first, *content_words(document.title)[:2]]))
    return line


def _cut(text: str) -> str:
    """One line of bounded length, in whole words where the script parts them."""
    text = " ".join(text.split())
    if len(text) > MOST_CHARACTERS:
        whole_words = text[: MOST_CHARACTERS + 1].rpartition(" ")[0]
        text = whole_words if len(whole_words) > MOST_CHARACTERS / 2 else text[:MOST_CHARACTERS]
    return text.rstrip()
