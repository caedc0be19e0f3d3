"""Typed, closed configs: one pydantic model a YAML file, every mistake named by file and dotted key."""

import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qmd_schema.errors import ConfigError


class StrictModel(BaseModel):
    """A config section: unknown keys are errors, values are not coerced across types, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


class CollectionConfig(StrictModel):
    """One judged collection in BEIR's format; it is known by its folder's name."""

    path: Path = Field(description="Folder with corpus.jsonl, queries.jsonl and judgements.")
    split: str | None = Field(None, description="Judgements of qrels_SPLIT.tsv; without a split qrels.tsv.")

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def files(self) -> list[Path]:
        judgements = f"qrels_{self.split}.tsv" if self.split else "qrels.tsv"
        return [self.path / name for name in ("corpus.jsonl", "queries.jsonl", judgements)]


Model = TypeVar("Model", bound=StrictModel)


def load_config(path: Path, model: type[Model], overrides: Mapping[str, Any] | None = None) -> Model:
    """Reads a YAML file into `model`; `overrides` maps dotted keys to values that replace the file's.

    Raises ConfigError with one line a mistake: file, dotted key, value, what would be right.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file.{_suggest_file(path)}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    values: dict[str, Any] = {} if raw is None else raw
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}, wants a mapping of keys to values.")
    for dotted, value in (overrides or {}).items():
        section = values
        *parents, last = dotted.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        messages = [_describe(path, model, dict(entry)) for entry in error.errors()]
        raise ConfigError("\n".join(messages)) from None


def _suggest_file(path: Path) -> str:
    names = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return f" {path.parent} holds: {', '.join(names)}." if names else f" There is no config in {path.parent}."


def _describe(path: Path, model: type[BaseModel], entry: dict[str, Any]) -> str:
    location = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        known = _keys_at(model, entry["loc"][:-1])
        close = difflib.get_close_matches(str(entry["loc"][-1]), known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(known)}."
        return f"{path}: {location}: unknown key. {hint}"
    if entry["type"] == "missing":
        return f"{path}: {location}: missing. Add the key."
    value = repr(entry.get("input"))
    shown = value if len(value) <= 80 else value[:77] + "..."
    where = f"{location}: " if location else ""
    return f"{path}: {where}{shown}: {entry['msg']}."


def _keys_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys a config knows at a dotted location, so that a misspelt one can be put right."""
    for part in location:
        field = model.model_fields.get(str(part))
        inner = _section(field.annotation) if field else None
        if inner is None:
            continue
        model = inner
    return sorted(model.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (list, tuple, dict, typing.Union, types.UnionType):
        return next(filter(None, map(_section, typing.get_args(annotation))), None)
    return None
