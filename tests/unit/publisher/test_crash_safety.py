"""A process that is killed anywhere while it changes a registry: readers, the second attempt, and what is left over.

The points where it is killed are those that the code names itself, listed by one attempt that is left alone.
"""

import copy
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from publisher import crash_points, gguf
from publisher.admission import Submission
from publisher.config import PublisherConfig
from publisher.gguf import GgufMaker
from publisher.parity import Worth
from publisher.probe import Report
from publisher.publication import publish
from publisher.registry import Registry, open_registry
from publisher.rollback import roll_back
from qmd_schema.artifacts import sha256_folder
from qmd_schema.verdicts import ModelIdentity
from support.hub import Hub
from support.publishing import publisher_config, submit
from support.registries import reachable_hub


@dataclass
class World:
    """A registry in a folder, or on a hub with its cache in one, and what is to be published into it."""

    kind: str
    folder: Path
    hub: Hub | None
    submissions: list[Submission] = field(default_factory=list)

    def config(self, cache: Path | None = None) -> PublisherConfig:
        small = {"quantisations": ["bf16"], "default_quantisation": "bf16"}
        if self.hub is None:
            return publisher_config(self.folder, **small)
        cache = cache or self.folder / "registry"
        hub = {"endpoint": self.hub.endpoint, "cache": cache, "longest_wait_seconds": 0.01}
        return publisher_config(self.folder, registry="hub", hub=hub, **small)

    def registry(self) -> Registry:
        return open_registry(self.config())

    def publish(self, number: int) -> None:
        config = self.config()
        publish(self.submissions[number], config, open_registry(config), lambda *_: None, threading.Event())

    def seen(self) -> tuple[str, bytes, bytes]:
        """Revision, model and GGUF file, as a reader on another machine gets them."""
        deployed = open_registry(self.config(self.folder.with_name("elsewhere"))).deployed()
        assert deployed is not None
        model = (deployed.model / "model.safetensors").read_bytes()
        return deployed.revision, model, deployed.gguf["bf16"].read_bytes()

    def left(self) -> dict[str, object]:
        """All that takes space. Commits are counted, since those of the model carry the time."""
        config = self.config()
        if self.hub is None:
            files = (p for p in config.folder.rglob("*") if p.is_file())
            return {str(p.relative_to(config.folder)): 1 for p in files}
        commits = {commit.id for repository in self.hub.repositories.values() for commit in repository.commits}
        cached = [p.name for p in config.hub.cache.glob("files/*/*")]
        repositories = {
            name: (len(repository.commits), sorted(repository.files), sorted(repository.tags))
            for name, repository in self.hub.repositories.items()
        }
        return {
            **repositories,
            "objects": sorted(self.hub.objects),
            "staged": [*config.hub.cache.glob("work/*/staging/*")],
            "cached otherwise": [name for name in cached if name not in commits],
        }


@dataclass
class Saved:
    """The state of a world, to begin from as often as there are points."""

    world: World
    folder: Path
    hub: tuple[object, object]

    @classmethod
    def of(cls, world: World, folder: Path) -> "Saved":
        shutil.copytree(world.folder, folder, symlinks=True)
        state = (world.hub.repositories, world.hub.objects) if world.hub else ({}, {})
        return cls(world, folder, copy.deepcopy(state))

    def restore(self) -> None:
        shutil.rmtree(self.world.folder)
        shutil.copytree(self.folder, self.world.folder, symlinks=True)
        if self.world.hub:
            repositories, objects = copy.deepcopy(self.hub)
            self.world.hub.repositories, self.world.hub.objects = repositories, objects  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def quick_gguf(monkeypatch: pytest.MonkeyPatch) -> None:
    """GGUF files that are made at once: they name the model they stand for."""

    def convert(_: GgufMaker, model: Path, target: Path, __: str) -> None:
        target.write_text(f"GGUF of {sha256_folder(model)}")

    def ask(*_: object) -> Report:
        answers = ["lex: old photos\n"]
        return Report(chat_template="", prompt_ids=[], total_variation=[0.0], answers=answers, ended=[True])

    def measure(_: GgufMaker, __: object, quantisations: list[str], ___: object) -> dict[str, Worth]:
        return dict.fromkeys(quantisations, Worth(1.0, 1.0, None))

    monkeypatch.setattr(GgufMaker, "convert", convert)
    monkeypatch.setattr(GgufMaker, "reference", lambda *_: None)
    monkeypatch.setattr(GgufMaker, "ask", ask)
    monkeypatch.setattr(GgufMaker, "measure", measure)
    monkeypatch.setattr(gguf, "tensor_types", lambda _: {"BF16": 1})


@pytest.fixture(params=["local", "hub"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two models, each with a PASS verdict; the first is published."""
    with ExitStack() as stack:
        hub = stack.enter_context(reachable_hub(monkeypatch)) if request.param == "hub" else None
        made = World(request.param, tmp_path / "world", hub)
        made.submissions.append(submit(made.folder / "first", _model(made.folder / "first/model"), made.config()))
        made.publish(0)
        current = made.registry().current()
        assert current is not None
        compared = ModelIdentity(reference="/first", sha256="a" * 64, revision=current.revision)
        changes = {"id": "verdict-2", "reference_kind": "deployed", "reference": compared}
        model = _model(made.folder / "second/model")
        made.submissions.append(submit(made.folder / "second", model, made.config(), **changes))
        yield made


def _model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_text(f"weights of {folder.parent.name}")
    return folder


def points_of(work: Callable[[], None]) -> list[str]:
    """The points that the work passes, in order."""
    points: list[str] = []
    crash_points.observer = points.append
    try:
        work()
    finally:
        crash_points.observer = None
    return points


def kill_at(index: int, work: Callable[[], None]) -> None:
    """Does the work in a child process that kills itself at its n-th point."""
    child = os.fork()
    if child == 0:
        left = index + 1

        def count(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        crash_points.observer = count
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def survives_a_kill_at_every_point(
    world: World, work: Callable[[], None], tmp_path: Path, subtests: pytest.Subtests
) -> list[str]:
    """Returns the points."""
    saved = Saved.of(world, tmp_path / "saved")
    old = world.seen()
    points = points_of(work)
    new, left = world.seen(), world.left()
    switched = []
    for index, point in enumerate(points):
        with subtests.test(point):
            saved.restore()
            kill_at(index, work)
            seen = world.seen()
            assert seen in (old, new)
            switched.append(seen == new)
            work()
            assert world.seen() == new
            assert world.left() == left
    assert switched == sorted(switched) and (old == new or set(switched) == {False, True})
    return points


def test_a_publication_may_be_killed_anywhere(world: World, tmp_path: Path, subtests: pytest.Subtests) -> None:
    points = survives_a_kill_at_every_point(world, lambda: world.publish(1), tmp_path, subtests)
    assert "convert to bf16" in points
    assert ("name it in main" if world.kind == "local" else "tag verdict-verdict-2") in points


def test_a_rollback_may_be_killed_anywhere(world: World, tmp_path: Path, subtests: pytest.Subtests) -> None:
    world.publish(1)
    first = world.registry().history()[-1].revision

    def work() -> None:
        roll_back(world.registry(), world.config().repository, first, "drops quoted phrases")

    survives_a_kill_at_every_point(world, work, tmp_path, subtests)


def test_a_clean_up_may_be_killed_anywhere(world: World, tmp_path: Path, subtests: pytest.Subtests) -> None:
    world.publish(1)

    def work() -> None:
        world.registry().collect(keep=1, dry_run=False)

    assert survives_a_kill_at_every_point(world, work, tmp_path, subtests)
