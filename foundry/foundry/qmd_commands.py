"""`foundry qmd install`: QMD pointed at the deployed model."""

from pathlib import Path
from typing import Annotated

import typer

from foundry.config import load_profile
from foundry.console import print_json, stderr, stdout
from publisher.registry import open_registry
from qmd_schema.artifacts import write_text_atomically
from qmd_schema.client_config import generate_lines, index_path, with_generate
from qmd_schema.errors import ArtifactError, UserError

app = typer.Typer(help="The QMD client on this machine.", no_args_is_help=True)


@app.callback()
def qmd() -> None:
    """The QMD client on this machine."""


@app.command()
def install(
    write: Annotated[bool, typer.Option("--write", help="Change index.yml instead of printing its lines.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="QMD's index.yml; default: the one QMD itself reads.", show_default=False)
    ] = None,
    profile: Annotated[str, typer.Option(help="cpu or gpu; chooses the registry.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Print the lines of QMD's index.yml for the deployed model, or with --write put them there.

    --write keeps the rest of the file, comments too, replaces it in one step, and leaves what was there as .bak.
    """
    deployment = open_registry(load_profile(profile).publisher).deployed()
    if deployment is None:
        raise UserError("nothing is deployed yet. Train and publish a model with `foundry run`.")
    gguf = deployment.gguf[deployment.default_quantisation]
    check_gguf(gguf)
    path = config or index_path()
    lines = generate_lines(str(gguf))
    backup = write_index(path, str(gguf)) if write else None
    if as_json:
        print_json(
            {
                "config": str(path),
                "lines": lines,
                "gguf": str(gguf),
                "revision": deployment.revision,
                "written": write,
                "backup": backup and str(backup),
            }
        )
    elif write:
        stdout.print(f"{path}: models.generate is {gguf}", markup=False, highlight=False, soft_wrap=True)
        if backup is not None:
            stderr.print(f"what was there before is in {backup}", markup=False, highlight=False, soft_wrap=True)
    else:
        stderr.print(f"Put this into {path}, or let --write do it:\n", markup=False, highlight=False, soft_wrap=True)
        print(lines, end="")


def check_gguf(path: Path) -> None:
    """Raises ArtifactError unless a file begins as GGUF files do: QMD deletes a local model that does not."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such GGUF file. Restore the registry, or publish again.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ArtifactError(f"{path}: not a GGUF file, and QMD would delete it. Publish the model again.")


def write_index(path: Path, gguf: str) -> Path | None:
    """Sets `models.generate` in an `index.yml`, which is made where there is none.

    Returns the copy of what was there, if there was anything. Raises ConfigError for a file that cannot be edited.
    """
    target = path.resolve()  # a symbolic link stays one
    if not target.is_file():
        write_text_atomically(target, generate_lines(gguf))
        return None
    content = target.read_bytes()
    edited = with_generate(content.decode("utf-8"), gguf, str(path))
    backup = target.with_name(f"{target.name}.bak")
    backup.write_bytes(content)
    mode = target.stat().st_mode
    write_text_atomically(target, edited)
    target.chmod(mode)
    return backup
