import itertools
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.local_registry import LocalRegistry
from publisher.registry import Publication, RegistryBusyError, RevisionConflictError
from qmd_schema.errors import ArtifactError

REPOSITORY = "acme/tiny"
FIRST, SECOND = "1" * 40, "2" * 40
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


def publish(registry: LocalRegistry, revision: str, parent: str | None) -> None:
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
