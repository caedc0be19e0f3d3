import itertools
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.admission import RefusedError
from publisher.dry_run import DryRun
from publisher.local_registry import LocalRegistry
from publisher.registry import Publication, PublicationTarget, RegistryBusyError, RevisionConflictError
from publisher.rollback import roll_back
from qmd_schema.errors import ArtifactError

REPOSITORY = "acme/tiny"
FIRST, SECOND, THIRD = "1" * 40, "2" * 40, "3" * 40
REPOSITORIES = ("tiny", "tiny-gguf", "tiny-sft")


def publication(revision: str, parent: str | None) -> Publication:
    return Publication(
        repository=REPOSITORY,
        revision=revision,
        parent=parent,
        created="2026-01-01T00:00:00+00:00",
        repositories=[f"acme/{name}" for name in REPOSITORIES],
        gguf={"bf16": "tiny.gguf"},
        default_quantisation="bf16",
        verdict_id=f"verdict {revision[:8]}",
        provenance={},
    )


def publish(registry: PublicationTarget, revision: str, parent: str | None) -> None:
    with registry.staging(revision) as staged:
        for name in REPOSITORIES:
            (staged / name).mkdir()
            (staged / name / "tiny.gguf").write_text(revision)
        registry.commit(staged, publication(revision, parent))


def contents(registry: LocalRegistry) -> tuple[str, str, str]:
    """The deployed revision as its pointer, its model and its GGUF file tell it."""
    deployed = registry.deployed()
    assert deployed is not None
    return deployed.revision, (deployed.model / "tiny.gguf").read_text(), deployed.gguf["bf16"].read_text()


def test_nothing_is_deployed_in_an_empty_registry(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path / "registry", REPOSITORY)
    registry.recover()
    assert registry.deployed() is None and registry.history() == []
    assert not (tmp_path / "registry").exists()


def test_a_commit_deploys_every_repository_under_one_revision(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    assert contents(registry) == (FIRST, FIRST, FIRST)
    assert {p.parent.parent.name for p in tmp_path.glob(f"acme/*/revisions/{FIRST}")} == set(REPOSITORIES)
    assert (tmp_path / "acme/tiny/main").read_text() == FIRST + "\n"


def test_history_is_newest_first_and_old_revisions_stay(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    publish(registry, SECOND, FIRST)
    assert [publication.revision for publication in registry.history()] == [SECOND, FIRST]
    assert all((tmp_path / f"acme/tiny/revisions/{revision}/tiny.gguf").is_file() for revision in (FIRST, SECOND))


def test_history_ends_where_revisions_are_no_longer_kept(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    publish(registry, SECOND, FIRST)
    shutil.rmtree(tmp_path / f"acme/tiny/revisions/{FIRST}")
    registry.recover()
    assert [deployment.revision for deployment in registry.history()] == [SECOND]


def test_published_files_are_read_only_for_everyone(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    modes = {p.stat().st_mode & 0o777 for p in tmp_path.glob("acme/*/revisions/*/*")}
    assert modes == {0o444}


def test_a_commit_onto_another_revision_than_its_parent_is_refused(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    with pytest.raises(RevisionConflictError, match=f"{FIRST} is deployed, no longer None"):
        publish(registry, SECOND, None)
    assert contents(registry) == (FIRST, FIRST, FIRST)
    assert not list(tmp_path.glob(f"acme/*/*/{SECOND}"))


def test_a_second_publication_is_refused_while_one_runs(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    with registry.staging(FIRST):
        other = LocalRegistry(tmp_path, REPOSITORY)
        with pytest.raises(RegistryBusyError, match="another publication is running"):
            publish(other, SECOND, None)
        with pytest.raises(RegistryBusyError):
            other.recover()


def test_a_failed_publication_leaves_nothing(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    with pytest.raises(OSError, match="no space"), registry.staging(FIRST) as staged:
        (staged / "tiny").mkdir()
        raise OSError("no space left on device")
    assert registry.deployed() is None
    assert not list(tmp_path.glob("acme/*/staging/*"))


def test_models_of_two_sizes_share_a_namespace_without_touching_each_other(tmp_path: Path) -> None:
    small, large = LocalRegistry(tmp_path, REPOSITORY), LocalRegistry(tmp_path, "acme/large")
    publish(small, FIRST, None)
    with large.staging(SECOND):
        small.recover()
        assert large.deployed() is None
    assert contents(small) == (FIRST, FIRST, FIRST)


def test_a_pointer_to_a_revision_that_is_gone_is_named_with_its_remedy(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    (tmp_path / "acme/tiny/main").write_text(SECOND)
    with pytest.raises(ArtifactError, match=r"publication\.json: missing, though .*main .*Restore it"):
        registry.deployed()


def test_a_rollback_takes_no_further_space_and_keeps_both_records(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    publish(registry, SECOND, FIRST)
    deployed = roll_back(registry, REPOSITORY, FIRST, "drops quoted phrases")
    assert contents(registry) == (deployed.revision, FIRST, FIRST)
    assert (deployed.model / "tiny.gguf").samefile(tmp_path / f"acme/tiny/revisions/{FIRST}/tiny.gguf")
    newest, _, first = registry.history()
    assert (newest.restores, newest.reason, newest.parent) == (FIRST, "drops quoted phrases", SECOND)
    assert (first.revision, first.restores, first.reason) == (FIRST, None, None)


def test_a_rollback_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    publish(registry, SECOND, FIRST)
    done = roll_back(registry, REPOSITORY, FIRST[:8], "drops quoted phrases")
    assert roll_back(registry, REPOSITORY, FIRST, "  drops\nquoted phrases") == done
    assert len(registry.history()) == 3


@pytest.mark.parametrize(
    ("repository", "revision", "reason", "message"),
    [
        ("acme/tiny-gguf", FIRST, "worse", "not the model's repository of this registry, acme/tiny"),
        (REPOSITORY, SECOND, "worse", "is the one that is deployed"),
        (REPOSITORY, "9" * 40, "worse", "names no revision that is kept; there are 22222222, 11111111"),
        (REPOSITORY, "1", "worse", "names no revision"),
        (REPOSITORY, FIRST, " ", "wants a reason"),
    ],
)
def test_a_rollback_that_cannot_be_done_says_why(
    tmp_path: Path, repository: str, revision: str, reason: str, message: str
) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    publish(registry, SECOND, FIRST)
    with pytest.raises(RefusedError, match=message):
        roll_back(registry, repository, revision, reason)
    assert contents(registry) == (SECOND, SECOND, SECOND)


def test_there_is_nothing_to_roll_back_in_an_empty_registry(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="nothing is deployed"):
        roll_back(LocalRegistry(tmp_path, REPOSITORY), REPOSITORY, FIRST, "worse")


def test_garbage_is_revisions_beyond_those_to_keep(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    for revision, parent in ((FIRST, None), (SECOND, FIRST), (THIRD, SECOND)):
        publish(registry, revision, parent)
    planned = registry.collect(keep=2, dry_run=True)
    assert planned.removed == [FIRST] and planned.bytes > 3 * len(FIRST)
    assert len(registry.history()) == 3
    assert registry.collect(keep=2, dry_run=False) == planned
    assert [publication.revision for publication in registry.history()] == [THIRD, SECOND]
    assert not list(tmp_path.glob(f"acme/*/revisions/{FIRST}")) and not list(tmp_path.glob("acme/*/staging/*"))
    assert contents(registry) == (THIRD, THIRD, THIRD)


def test_what_a_kept_rollback_took_back_is_no_garbage(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    publish(registry, SECOND, FIRST)
    restored = roll_back(registry, REPOSITORY, FIRST, "worse").revision
    planned = registry.collect(keep=1, dry_run=True)
    assert planned.removed == [SECOND]
    assert registry.collect(keep=1, dry_run=False) == planned
    assert [publication.revision for publication in registry.history()] == [restored, FIRST]
    publish(registry, THIRD, restored)
    assert registry.collect(keep=1, dry_run=False).removed == sorted([restored, FIRST])


def test_garbage_of_one_size_leaves_the_other_alone(tmp_path: Path) -> None:
    small, large = LocalRegistry(tmp_path, REPOSITORY), LocalRegistry(tmp_path, "acme/large")
    publish(small, FIRST, None)
    publish(small, SECOND, FIRST)
    with large.staging(THIRD) as staged:
        assert small.collect(keep=1, dry_run=False).removed == [FIRST]
        assert staged.is_dir()


def test_garbage_is_not_collected_while_a_publication_runs(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    with registry.staging(FIRST), pytest.raises(RegistryBusyError):
        registry.collect(keep=1, dry_run=False)


def test_a_dry_run_tells_every_file_and_leaves_nothing(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    dry_run = DryRun(registry)
    publish(dry_run, FIRST, None)
    assert [(change.repository, change.written) for change in dry_run.changes] == [
        (f"acme/{name}", {"tiny.gguf": 40}) for name in REPOSITORIES
    ]
    assert registry.deployed() is None and [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["lock"]
    publish(registry, FIRST, None)
    with pytest.raises(RevisionConflictError):
        publish(DryRun(registry), SECOND, None)


def test_readers_see_the_old_revision_or_the_new_one_whole(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path, REPOSITORY)
    publish(registry, FIRST, None)
    done = threading.Event()
    seen: list[tuple[str, str, str]] = []
    problems: list[Exception] = []

    def read() -> None:
        while not done.is_set():
            try:
                seen.append(contents(registry))
            except Exception as error:
                problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    revisions = [FIRST, *(f"{number:040x}" for number in range(2, 42))]
    for parent, revision in itertools.pairwise(revisions):
        publish(registry, revision, parent)
    done.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert len({pointer for pointer, _, _ in seen}) > 1
    assert all(pointer == model == gguf for pointer, model, gguf in seen)


def killed_at(operation: int, work: Callable[[], None]) -> bool:
    """Does the work in a child that is killed right before its n-th file operation; False if it did not get there."""
    child = os.fork()
    if child == 0:
        left = operation

        def count(event: str, _: tuple[object, ...]) -> None:
            nonlocal left
            if event == "open" or event.startswith(("os.", "shutil.", "fcntl.")):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_publisher_killed_at_any_file_operation_leaves_the_old_revision_or_the_new_one(tmp_path: Path) -> None:
    outcomes = []
    operation = 1
    while True:
        folder = tmp_path / str(operation)
        registry = LocalRegistry(folder, REPOSITORY)
        publish(registry, FIRST, None)
        if not killed_at(operation, lambda registry=registry: publish(registry, SECOND, FIRST)):  # type: ignore[misc]
            break
        after, _, _ = outcome = contents(registry)
        assert outcome in [(FIRST,) * 3, (SECOND,) * 3], operation
        registry.recover()
        assert contents(registry) == outcome
        files = [p for p in folder.rglob("*") if p.is_file()]
        revisions = [p.relative_to(folder).parts[3] for p in files if "revisions" in p.parts]
        assert set(revisions) == ({FIRST} if after == FIRST else {FIRST, SECOND}), operation
        assert sorted(p.name for p in files if "revisions" not in p.parts) == ["lock", "main"]
        if after == FIRST:
            publish(registry, SECOND, FIRST)
        assert contents(registry) == (SECOND,) * 3
        outcomes.append(after)
        operation += 1
    assert set(outcomes) == {FIRST, SECOND}
    assert outcomes == sorted(outcomes)
