"""Evaluates a Tiltfile with a Starlark interpreter and collects the resources it declares."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import starlark

PRELUDE = """
config = struct(define_string=define_string, parse=parse)
"""


@dataclass(frozen=True)
class Resource:
    """One local_resource: a command that ends (`cmd`) or one that serves, with its probe and what it waits for."""

    name: str
    cmd: str = ""
    serve_cmd: str = ""
    deps: list[str] = field(default_factory=list)
    resource_deps: list[str] = field(default_factory=list)
    readiness_probe: dict[str, Any] | None = None
    links: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def evaluate_tiltfile(path: Path, settings: dict[str, str]) -> dict[str, Resource]:
    """The resources of a Tiltfile by name, in order. settings: the values given behind `tilt up --`."""
    resources: dict[str, Resource] = {}
    known: set[str] = set()

    def local_resource(name: str, **values: Any) -> None:
        resources[name] = Resource(name, **values)

    def define_string(name: str, usage: str = "") -> None:
        assert usage
        known.add(name)

    def parse() -> dict[str, str]:
        assert set(settings) <= known
        return settings

    module = starlark.Module()
    for name, function in {
        "local_resource": local_resource,
        "define_string": define_string,
        "parse": parse,
        "probe": lambda **values: values,
        "exec_action": lambda command: command,
        "http_get_action": lambda port, path="/": {"port": port, "path": path},
    }.items():
        module.add_callable(name, function)
    library = starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
    dialect = starlark.Dialect.extended()
    dialect.enable_top_level_stmt = True
    source = PRELUDE + path.read_text()
    starlark.eval(module, starlark.parse("Tiltfile", source, dialect), library)
    return resources
