"""What the real QMD client made of GGUF files: `make qmd-acceptance` leaves it, and the cards show it."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from qmd_schema.artifacts import sha256_file
from qmd_schema.config import StrictModel
from qmd_schema.errors import ArtifactError


class Acceptance(StrictModel):
    """One table about one or more files."""

    files: dict[str, str] = Field(description="SHA-256 of each GGUF file, by the name it has in the table.")
    table: str = Field(description="In Markdown, a line for each file and collection.")


def read_acceptance(path: Path, published: Iterable[Path]) -> Acceptance | None:
    """The acceptance in a JSON file; None where there is no such file, or where it is about none of those published.

    Raises ArtifactError for a file that is no acceptance.
    """
    if not path.is_file():
        return None
    try:
        acceptance = Acceptance.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ArtifactError(f"{path}: not what `make qmd-acceptance` writes: {error}. Delete it.") from error
    judged = set(acceptance.files.values())
    return acceptance if any(sha256_file(file) in judged for file in published) else None
