"""Commands about the registry: publish a run's model, what is deployed and was before, roll back, clean up."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import typer

from foundry.config import load_profile
from foundry.console import print_json, print_table, stderr, stdout
from foundry.model_commands import AsJson, Profile, load_registry
from foundry.progress import StageProgress
from foundry.runs import find_run
from foundry.services import module_command
from qmd_rpc.publishing import PublishingClient
from qmd_rpc.v1 import publishing_pb2

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing in the registry.")]


@contextmanager
def publisher_client(profile_name: str, progress: StageProgress) -> Iterator[PublishingClient]:
    """A client of a ready publisher: the one that runs, or one that lives as long as the block."""
    from foundry.evaluation import start_unless_running

    profile = load_profile(profile_name)
    address = profile.address("publisher")
    with ExitStack() as stack:
        command = module_command("publisher", "--config", str(profile.config_file("publisher")))
        start_unless_running(stack, profile, progress, "publisher", PublishingClient(address, deadline=2), command)
        yield stack.enter_context(PublishingClient(address))


def publish(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run whose verdict is PASS, or its folder.")],
    profile: Profile = "cpu",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Publish a run's model, if its verdict allows it.

    A dry run makes the GGUF files, cards and all, tries them, and then says what would be pushed.
    """
    from foundry.pipeline import Pipeline

    configs = load_profile(profile)
    chosen = find_run(configs.pipeline.runs, run_id)
    console = stderr if as_json else stdout
    pipeline = Pipeline(chosen, configs, console)
    with chosen.locked(), StageProgress(console, "publish") as progress:
        if dry_run:
            changes = pipeline.preview(progress)
        else:
            deployment = pipeline.publish(progress)
    if dry_run:
        _show_changes(changes, as_json)
    else:
        _show("published", deployment, as_json)


def deployed(profile: Profile = "cpu", as_json: AsJson = False) -> None:
    """What is deployed: repository, revision, files, and the verdict that allowed it."""
    deployment = load_registry(profile).deployed()
    if as_json:
        print_json(
            deployment
            and {
                "repository": deployment.repository,
                "revision": deployment.revision,
                "model": str(deployment.model),
                "gguf": {name: str(path) for name, path in deployment.gguf.items()},
                "default_quantisation": deployment.default_quantisation,
                "verdict": deployment.verdict_id,
            }
        )
    elif deployment is None:
        stdout.print("Nothing is deployed yet. Train and publish a model with `foundry run`.")
    else:
        rows: list[list[Any]] = [
            ["repository", deployment.repository],
            ["revision", deployment.revision],
            ["model", deployment.model],
            *([f"GGUF {name}", path] for name, path in deployment.gguf.items()),
            ["QMD should use", deployment.default_quantisation],
            ["verdict", deployment.verdict_id],
        ]
        print_table("deployed", ["", ""], rows)


def history(profile: Profile = "cpu", as_json: AsJson = False) -> None:
    """The revisions that are kept, newest first: when, by which verdict, and what was rolled back and why."""
    with StageProgress(stderr, "history") as progress, publisher_client(profile, progress) as client:
        revisions = client.revisions()
    if as_json:
        names = ("revision", "parent", "created", "verdict_id", "restores", "reason")
        rows = [{name: getattr(revision, name) or None for name in names} for revision in revisions]
        print_json([{**row, "repositories": list(r.repositories)} for row, r in zip(rows, revisions, strict=True)])
    elif not revisions:
        stdout.print("Nothing is deployed yet. Train and publish a model with `foundry run`.")
    else:
        columns = ["revision", "created", "verdict", "restores", "reason"]
        cells = [[r.revision[:8], r.created, r.verdict_id, r.restores[:8], r.reason] for r in revisions]
        print_table("history, the first is deployed", columns, cells)


def rollback(
    repository: Annotated[str, typer.Argument(metavar="REPO", help="The model's, as `foundry deployed` names it.")],
    revision: Annotated[str, typer.Argument(help="The one to take back: eight digits or more, see `foundry history`.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the new revision's record.")],
    profile: Profile = "cpu",
    as_json: AsJson = False,
) -> None:
    """Deploy an earlier revision's content again, as a new revision, with all that was published beside it."""
    with StageProgress(stderr, "rollback") as progress, publisher_client(profile, progress) as client:
        deployment = client.roll_back(repository, revision, reason)
    _show("rolled back", deployment, as_json)


def collect_garbage(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest revisions stay.")] = 5,
    dry_run: DryRun = False,
    profile: Profile = "cpu",
    as_json: AsJson = False,
) -> None:
    """Remove old revisions, and what killed publications left.

    The deployed revision stays, and so does one that a kept rollback took back. Of a registry on the Hub only files
    cached on this machine are removed: its history stays.
    """
    with StageProgress(stderr, "gc") as progress, publisher_client(profile, progress) as client:
        garbage = client.collect_garbage(keep, dry_run)
    if as_json:
        print_json({"removed": list(garbage.removed), "bytes": garbage.bytes, "dry_run": dry_run})
        return
    for name in garbage.removed:
        print(name)
    did = "would be removed" if dry_run else "removed"
    summary = f"{len(garbage.removed)} {did}, {garbage.bytes / 2**20:.1f} MiB. {garbage.note}"
    stdout.print(summary.rstrip(), highlight=False, soft_wrap=True)


def _show(title: str, deployment: publishing_pb2.Deployment, as_json: bool) -> None:
    rows = [
        ["repository", deployment.repository],
        ["revision", deployment.revision],
        *([f"GGUF {name}", path] for name, path in deployment.gguf.items()),
    ]
    if as_json:
        print_json({str(name): str(value) for name, value in rows})
    else:
        print_table(title, ["", ""], rows)


def _show_changes(changes: Sequence[publishing_pb2.RepositoryChange], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "repository": change.repository,
                    "written": dict(change.written),
                    "removed": list(change.removed),
                    "unchanged": change.unchanged,
                }
                for change in changes
            ]
        )
    elif not changes:
        stdout.print("This verdict was published before; nothing would change.")
    else:
        rows: list[list[Any]] = []
        for change in changes:
            rows += [[change.repository, path, f"{size:,} bytes"] for path, size in sorted(change.written.items())]
            rows += [[change.repository, path, "removed"] for path in change.removed]
            rows += [[change.repository, f"{change.unchanged} files", "unchanged"]] if change.unchanged else []
        print_table("would be pushed", ["repository", "file", ""], rows)
