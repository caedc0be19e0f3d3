"""QMD's `index.yml`: where it is, and the line in it that names the model that expands queries (QMD 2.8)."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from qmd_schema.errors import ConfigError

INDEX_NAME = "index.yml"

_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9/._+-]*")
_REMEDY = "Put the lines there by hand; `foundry qmd install` prints them."


def index_path(environment: Mapping[str, str] = os.environ) -> Path:
    """QMD's own config file: in $QMD_CONFIG_DIR, else in qmd/ of $XDG_CONFIG_HOME, else in ~/.config/qmd/."""
    if folder := environment.get("QMD_CONFIG_DIR"):
        return Path(folder) / INDEX_NAME
    root = environment.get("XDG_CONFIG_HOME")
    return (Path(root) if root else Path.home() / ".config") / "qmd" / INDEX_NAME


def generate_lines(gguf: str) -> str:
    """The lines of `index.yml` that have QMD expand queries with a GGUF file. gguf: its absolute path."""
    return f"models:\n  generate: {_scalar(gguf)}\n"


def with_generate(text: str, gguf: str, where: str = INDEX_NAME) -> str:
    """The text of an `index.yml` with `models.generate` set to a file; all else stays as it is, comments too.

    where: names the file in errors. Raises ConfigError for a text that cannot be edited so.
    """
    try:
        before = yaml.safe_load(text)
        root = yaml.compose(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not readable as YAML: {error}. {_REMEDY}") from error
    if before is not None and not isinstance(before, dict):
        raise ConfigError(f"{where}: holds a {type(before).__name__}, QMD wants a mapping of keys to values. {_REMEDY}")
    edited = _edit(text, root if isinstance(root, yaml.MappingNode) else None, gguf)
    if not _says(edited, before or {}, gguf):
        raise ConfigError(f"{where}: written in a way that cannot be edited safely. {_REMEDY}")
    return edited


def _edit(text: str, root: yaml.MappingNode | None, gguf: str) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = generate_lines(gguf).replace("\n", newline)
    if root is None:
        return text + ("" if text.endswith("\n") or not text else newline) + lines
    start = root.start_mark
    if not root.value:
        return text[: start.index] + lines + text[root.end_mark.index :].removeprefix(newline)
    models = _value(root, "models")
    if models is not None:
        return _set_generate(text, root, models, gguf, newline)
    if root.flow_style:
        return _insert(text, start.index + 1, f"models: {{generate: {_scalar(gguf)}}}, ")
    end = _end_of(text, root)
    indent = " " * start.column
    lines = "".join(indent + line for line in lines.splitlines(keepends=True))
    return _insert(text, end, ("" if text[:end].endswith("\n") else newline) + lines)


def _set_generate(text: str, root: yaml.MappingNode, models: yaml.Node, gguf: str, newline: str) -> str:
    """The text with the model set under a key `models` that is there."""
    path = _scalar(gguf)
    if not isinstance(models, yaml.MappingNode) or not models.value:
        if models.start_mark.index == models.end_mark.index:
            indent = " " * (root.start_mark.column + 2)
            return _insert(text, _key_end(root, "models") + 1, f"{newline}{indent}generate: {path}")
        return text[: models.start_mark.index] + f"{{generate: {path}}}" + text[models.end_mark.index :]
    generate = _value(models, "generate")
    if generate is None:
        separator = ", " if models.flow_style else newline + " " * models.start_mark.column
        place = models.start_mark.index + (1 if models.flow_style else 0)
        return _insert(text, place, f"generate: {path}{separator}")
    start, end = generate.start_mark.index, generate.end_mark.index
    if start == end:
        return _insert(text, _key_end(models, "generate") + 1, f" {path}")
    while text[end - 1] in "\r\n ":  # a block scalar ends where the next key begins
        end -= 1
    return text[:start] + path + text[end:]


def _value(mapping: yaml.MappingNode, key: str) -> yaml.Node | None:
    return next((value for name, value in mapping.value if name.value == key), None)


def _key_end(mapping: yaml.MappingNode, key: str) -> int:
    return next(int(name.end_mark.index) for name, _ in mapping.value if name.value == key)


def _end_of(text: str, root: yaml.MappingNode) -> int:
    """Where a key may be added behind the last one of a block mapping: before the end of the document."""
    ending = re.compile(r"^(\.\.\.|---)", re.MULTILINE).search(text, root.value[-1][1].end_mark.index)
    return ending.start() if ending else len(text)


def _insert(text: str, place: int, what: str) -> str:
    return text[:place] + what + text[place:]


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _says(edited: str, before: dict[str, Any], gguf: str) -> bool:
    """Whether a text says what was said before but for the model."""
    models = before.get("models")
    if models is not None and not isinstance(models, dict):
        return False
    try:
        after = yaml.safe_load(edited)
    except yaml.YAMLError:
        return False
    return bool(after == before | {"models": (models or {}) | {"generate": gguf}})
