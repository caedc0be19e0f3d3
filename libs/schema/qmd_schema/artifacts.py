"""Files that stages hand on: hashes, atomic writes, and the manifest that says a stage is done."""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from qmd_schema.config import StrictModel
from qmd_schema.errors import ArtifactError

MANIFEST_NAME = "manifest.json"


class Manifest(StrictModel):
    """What a finished stage did. A stage folder without one is unfinished."""

    stage: str
    config: dict[str, Any] = Field(description="The resolved config the stage ran with.")
    inputs: dict[str, str] = Field(description="SHA-256 of each input, by name.")
    outputs: dict[str, str] = Field(description="SHA-256 of each output file, by path inside the stage folder.")
    figures: dict[str, Any] = Field(default={}, description="What the stage measured of itself.")
    versions: dict[str, str] = Field(description="Versions of Python and of the packages the stage depends on.")
    seed: int | None
    seconds: float = Field(description="Wall-clock seconds the stage took.")


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The hash of a JSON value, independent of key order."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def list_files(folder: Path) -> list[Path]:
    """Every file below a folder but its manifest, sorted by path."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST_NAME)


def sha256_folder(folder: Path) -> str:
    """One hash of a folder's files: their relative paths and contents, its manifest aside."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder.")
    return sha256_json([[p.relative_to(folder).as_posix(), sha256_file(p)] for p in list_files(folder)])


def write_text_atomically(path: Path, text: str) -> None:
    """Writes to a temporary name beside `path`, syncs and renames, so a reader sees the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


@contextmanager
def folder_written_atomically(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target` that takes its place when the block ends, and is removed if it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        temporary.chmod(0o755)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions of the named distributions, Python's included; those that are absent are left out."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_manifest(
    folder: Path,
    stage: str,
    config: StrictModel,
    inputs: dict[str, str],
    seconds: float,
    packages: Iterable[str],
    seed: int | None = None,
    figures: dict[str, Any] | None = None,
) -> Manifest:
    """Hashes what a stage left in its folder and marks the stage as done; call it last."""
    manifest = Manifest(
        stage=stage,
        config=config.model_dump(mode="json"),
        inputs=inputs,
        outputs={p.relative_to(folder).as_posix(): sha256_file(p) for p in list_files(folder)},
        figures=figures or {},
        versions=package_versions(packages),
        seed=seed,
        seconds=seconds,
    )
    write_text_atomically(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """A finished stage's manifest, or None where the stage is not finished. Raises ArtifactError if unreadable."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ArtifactError(f"{path}: not a manifest: {error}. Delete the folder to run the stage again.") from error
