"""A user's notes as documents: markdown files, read without front matter, and what of them is heading or prose."""

import re
from pathlib import Path

from qmd_schema.errors import DataError
from qmd_search.collections import Document, load_documents

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?P<fields>.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_TITLE_FIELD = re.compile(r"""^title:[ \t]*(["']?)(?P<title>.+?)\1[ \t]*$""", re.MULTILINE)
_FENCED = re.compile(r"^[ \t]*(?P<fence>```+|~~~+).*?(?:^[ \t]*(?P=fence)[^\n]*$|\Z)", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(?P<text>.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_TABLE_ROW = re.compile(r"^[ \t]*\|.*$", re.MULTILINE)
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[\[(?:[^\]|]*\|)?([^\]]*)\]\]|\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_ADDRESS = re.compile(r"\b\w+://\S+")
_CODE = re.compile(r"`[^`\n]*`")
_EMPHASIS = re.compile(r"\*+|~~|(?<!\w)_+|_+(?!\w)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])[ \t]+(?:\[[ xX]\][ \t]+)?|\s*>+[ \t]*")
_NUMBERING = re.compile(r"^\d+(?:\.\d+)*[.)]?\s+")


def read_notes(folder: Path) -> tuple[Document, ...]:
    """The documents of a BEIR folder, or of every markdown file below a folder, by path.

    A markdown file's id is its path below the folder without `.md`; hidden files and empty ones are left out.
    Raises DataError that lists the files that are not UTF-8, or where there is no document at all.
    """
    if (folder / "corpus.jsonl").is_file():
        return load_documents(folder).documents
    documents, problems = [], []
    for path in sorted(folder.rglob("*.md")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            problems.append(f"{path}: not UTF-8; save the file as UTF-8.")
            continue
        title, body = _split_front_matter(text)
        if body.strip():
            heads = headings(body)
            documents.append(Document(relative.with_suffix("").as_posix(), title or (heads or [path.stem])[0], body))
    if problems or not documents:
        raise DataError("\n".join(problems) or f"{folder}: holds no markdown file with text and no corpus.jsonl.")
    return tuple(documents)


def headings(text: str) -> list[str]:
    """The headings of a text, in order, without markup and numbering; those in code blocks are none."""
    found = (_plain(match["text"]) for match in _HEADING.finditer(_without_code(text)))
    return [_NUMBERING.sub("", heading) for heading in found if heading]


def prose(text: str) -> list[str]:
    """The paragraphs and list items of a text, each on one line and without markup.

    Headings, tables, code blocks and comments are left out; a code span is a full stop, so that no phrase crosses it.
    """
    text = _TABLE_ROW.sub("", _HEADING.sub("\n", _without_code(text)))
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        item = _ITEM.match(line)
        if item or not line.strip():
            blocks.append([])
        blocks[-1].append(line[item.end() :] if item else line)
    return [plain for block in blocks if (plain := _plain(" ".join(block)))]


def _split_front_matter(text: str) -> tuple[str, str]:
    """Title, empty where the front matter names none, and the text behind it."""
    front = _FRONT_MATTER.match(text)
    if front is None:
        return "", text
    title = _TITLE_FIELD.search(front["fields"])
    return title["title"] if title else "", text[front.end() :].lstrip("\n")


def _without_code(text: str) -> str:
    return _COMMENT.sub("", _FENCED.sub("\n", text))


def _plain(text: str) -> str:
    text = _LINK.sub(lambda link: link[1] or link[2] or "", _IMAGE.sub("", text))
    text = _EMPHASIS.sub("", _ADDRESS.sub(".", _CODE.sub(".", text)))
    return " ".join(text.split())
