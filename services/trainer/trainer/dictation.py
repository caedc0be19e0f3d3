"""Hyde lines that judged documents dictate: from them a model learns what its collections say."""

import re
from collections.abc import Sequence

from qmd_schema.config import CollectionConfig
from qmd_schema.expansion import Line
from qmd_search.collections import Document, load_collection
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
        documents = {document.id: document for document in collection.documents}
        for id_, query in collection.queries.items():
            grades = collection.qrels[id_]
            lines.setdefault((config.name, query), hyde_line(query, documents[max(grades, key=grades.__getitem__)]))
    return lines


def hyde_line(query: str, document: Document) -> Line:
    """The query again, then how the document begins, in whole words.

    A model that learns this is often wrong about the document. The restated query keeps the line near to what is
    searched all the same, and in the eyes of QMD, which drops a line without a word of the query.
    """
    opening = " ".join(prose(_CODE.sub(r"\1", document.text))) or document.title
    text = f"{' '.join(query.split()).rstrip('?.! ')}: {opening}"
    if len(text) > MOST_CHARACTERS:
        text = text[: MOST_CHARACTERS + 1].rpartition(" ")[0]
    return Line("hyde", text)
