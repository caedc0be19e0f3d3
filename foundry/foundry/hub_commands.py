"""`foundry data pull` and `push`: training data from the Hugging Face Hub, and prepared data to it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from jinja2 import Environment, PackageLoader, StrictUndefined

from foundry.config import profile_folder
from foundry.console import stdout
from publisher.config import PublisherConfig
from qmd_schema.artifacts import Manifest, read_manifest, sha256_file, write_text_atomically
from qmd_schema.config import load_config
from qmd_schema.errors import ArtifactError, DataError, UserError
from qmd_schema.examples import TrainingExample, load_examples
from qmd_schema.expansion import parse
from trainer.dataset import UNSLICED, load_rows

PARTS = ("train", "val")
PREPARED_FILES = ("train.jsonl", "val.jsonl", "manifest.json")
TAGS = ("qmd", "query-expansion", "information-retrieval")


def pull(
    reference: Annotated[str, typer.Argument(help="Dataset on the Hub: hf:org/name or hf:org/name@revision.")],
    output: Annotated[
        Path | None, typer.Option(help="JSONL file that is written; default: data/NAME.jsonl.", show_default=False)
    ] = None,
) -> None:
    """Fetch a published set from the Hugging Face Hub into data/.

    Takes every *.jsonl of the dataset, in training format or as `foundry data push` published it, and checks all rows
    before anything is written. HF_TOKEN gives access to a private one, HF_ENDPOINT names another hub.
    """
    scheme, _, name = reference.partition(":")
    repository, _, revision = name.partition("@")
    if scheme != "hf" or not repository:
        raise UserError(f"{reference}: not a dataset reference. Write hf:org/name or hf:org/name@revision.")
    target = output or Path("data") / f"{repository.rpartition('/')[2]}.jsonl"
    if target.exists():
        raise UserError(f"{target}: exists already. Move it away, or name another file with --output.")
    examples = read_published(_download(repository, revision or None))
    lines = (json.dumps(example.model_dump(exclude_none=True), ensure_ascii=False) for example in examples)
    write_text_atomically(target, "".join(f"{line}\n" for line in lines))
    stdout.print(f"{len(examples)} rows of {reference} in {target}", highlight=False, soft_wrap=True)
    stdout.print(f"next: foundry data lint {target}", highlight=False, soft_wrap=True)


def push(
    data: Annotated[Path, typer.Argument(help="Folder that `foundry data prepare` wrote.")],
    profile: Annotated[str, typer.Option(help="cpu or gpu; its publisher.yaml names namespace and licence.")] = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be published; ask no server.")] = False,
) -> None:
    """Publish prepared data on the Hugging Face Hub, in one commit, as NAMESPACE/qmd-query-expansion-train.

    train.jsonl, val.jsonl and the manifest go there, with a card that tells licence, sizes, slices and the hashes of
    what the data was made from. The token is read from HF_TOKEN, or from the file that `hf auth login` leaves.
    """
    config = load_config(profile_folder(profile) / "publisher.yaml", PublisherConfig)
    repository = f"{config.namespace}/{config.data_name}"
    manifest = check_prepared(data)
    card = render_card(manifest, config)
    if dry_run:
        files = ", ".join(f"{name} ({(data / name).stat().st_size:,} bytes)" for name in PREPARED_FILES)
        stdout.print(f"would be published as {repository}: {files}, README.md:", highlight=False, soft_wrap=True)
        print(f"\n{card}", end="")
        return
    url = _upload(repository, data, card, manifest)
    stdout.print(f"published: {url}", highlight=False, soft_wrap=True)


def read_published(folder: Path) -> list[TrainingExample]:
    """The training examples of a dataset folder: those of all its *.jsonl files, or the rows that `prepare` wrote.

    Raises DataError that lists every bad line.
    """
    files = sorted(folder.rglob("*.jsonl"))
    if not files:
        raise DataError(f"{folder}: the dataset holds no *.jsonl file. Is it another kind of data?")
    if read_manifest(folder) is None:
        return [loaded.example for loaded in load_examples(files)]
    return [
        TrainingExample(
            query=row.query,
            output=list(parse(row.completion.rpartition("\n")[0] + "\n").expansion.lines),  # what follows is the EOS
            category=None if row.slice == UNSLICED else row.slice,
        )
        for part in PARTS
        for row in load_rows(folder, part)
    ]


def check_prepared(data: Path) -> Manifest:
    """The manifest of a folder that `prepare` wrote, every file still as it was. Raises ArtifactError otherwise."""
    manifest = read_manifest(data)
    if manifest is None or manifest.stage != "prepare":
        raise ArtifactError(f"{data}: not a folder of prepared data. Write one: foundry data prepare --output {data}")
    for part in PARTS:
        name = f"{part}.jsonl"
        if not (data / name).is_file() or manifest.outputs.get(name) != sha256_file(data / name):
            raise ArtifactError(f"{data / name}: missing, or not what the manifest says. Prepare the data again.")
    return manifest


def render_card(manifest: Manifest, config: PublisherConfig) -> str:
    """The dataset's README.md, with the metadata that the Hub reads."""
    from huggingface_hub import DatasetCardData

    rows = sum(manifest.figures[part] for part in PARTS)
    metadata = DatasetCardData(
        license=config.data_licence,
        language="en",
        tags=list(TAGS),
        size_categories="n<1K" if rows < 1000 else "1K<n<10K" if rows < 10_000 else "10K<n<100K",
        configs=[
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": "train.jsonl"},
                    {"split": "validation", "path": "val.jsonl"},
                ],
            }
        ],
    )
    template = Environment(
        loader=PackageLoader("foundry"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template("data_card.md.j2")
    return template.render(metadata=metadata.to_yaml(), manifest=manifest, config=config, rows=rows)


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with _hub_errors(f"hf:{repository}", "could not be fetched"):
        return Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=["*.jsonl", "manifest.json"]
            )
        )


def _upload(repository: str, data: Path, card: str, manifest: Manifest) -> str:
    """Publishes in one commit and returns its address."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise UserError("no token for the Hugging Face Hub: set HF_TOKEN, or log in with `hf auth login`.")
    api = HfApi()
    operations = [CommitOperationAdd(name, data / name) for name in PREPARED_FILES]
    operations.append(CommitOperationAdd("README.md", card.encode()))
    message = f"Publish {manifest.figures['train']} training and {manifest.figures['val']} validation rows"
    with _hub_errors(repository, "could not be published"):
        api.create_repo(repository, repo_type="dataset", exist_ok=True)
        return api.create_commit(repository, operations, repo_type="dataset", commit_message=message).commit_url


@contextmanager
def _hub_errors(what: str, failed: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into one message that says what to do."""
    from httpx2 import HTTPError  # the HTTP client of huggingface_hub: no connection, no answer
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        yield
    except (OSError, ValueError, HTTPError) as error:
        offline = " HF_HUB_OFFLINE is set; unset it." if HF_HUB_OFFLINE else ""
        reason = str(error).strip().rstrip(".")
        raise UserError(
            f"{what}: {failed}: {reason}.{offline} Check the name, the network and the token's rights."
        ) from error
