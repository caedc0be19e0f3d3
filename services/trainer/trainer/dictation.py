"""Hyde lines that judged documents dictate: from them a model learns what its collections say."""

import re
from collections.abc import Mapping, Sequence

from qmd_schema.config import CollectionConfig
from qmd_schema.expansion import Line
from qmd_search.collections import Collection, Document, load_collection
from trainer.markdown import prose

MOST_CHARACTERS = 200
"""Of a hyde line; the rubric takes points for a longer one."""

_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def dictated_hydes(collections: Sequence[CollectionConfig]) -> dict[tuple[str, str], Line]:
    """Name of a collection and text of a judged query -> the hyde line that the document which answers it best gives.

    Raises DataError for a collection that cannot be read.
    """
    lines: dict[tuple[str, str], Line] = {}
    for config in collections:
        collection = load_collection(config.path, config.split)
        for id_, document in answers(collection).items():
            query = collection.queries[id_]
            lines.setdefault((config.name, query), hyde_line(query, document))
    return lines


def answers(collection: Collection) -> Mapping[str, Document]:
    """Query id -> the document that answers the query best, the first of equals."""
    documents = {document.id: document for document in collection.documents}
    return {id_: documents[max(grades, key=grades.__getitem__)] for id_, grades in collection.qrels.items()}


def hyde_line(query: str, document: Document) -> Line:
    """The query again, then how the document begins, in whole words where its script parts them.

    A model that learns this is often wrong about the document. The restated query keeps the line near to what is
    searched all the same, and in the eyes of QMD, which drops a line without a word of the query.
    """
    opening = " ".join(prose(_CODE.sub(r"\1", document.text))) or document.title
    text = f"{' '.join(query.split()).rstrip('?.! ')}: {opening}"
    if len(text) > MOST_CHARACTERS:
        whole_words = text[: MOST_CHARACTERS + 1].rpartition(" ")[0]
        text = whole_words if len(whole_words) > MOST_CHARACTERS / 2 else text[:MOST_CHARACTERS]
    return Line("hyde", text.strip())
