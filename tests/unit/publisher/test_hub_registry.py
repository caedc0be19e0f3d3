"""The registry on a hub on loopback, through the client library as it is."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.dry_run import DryRun
from publisher.hub_client import HubError
from publisher.registry import RegistryBusyError, RegistryUnreachableError, RevisionConflictError
from publisher.rollback import roll_back
from qmd_schema.errors import ArtifactError, UserError
from support.hub import SIGNATURE, Fault, Hub
from support.registries import (
    DATA,
    FIRST,
    MODEL,
    SECOND,
    THIRD,
    contents,
    hub_registry,
    publication,
    publish,
    reachable_hub,
    stage,
)

PUSH_TO_MODEL = f"POST /api/models/{MODEL}/commit"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with reachable_hub(monkeypatch) as served:
        yield served


def commits(hub: Hub) -> dict[str, int]:
    """How many commits each repository holds beyond the one it began with."""
    return {name: len(repository.commits) - 1 for name, repository in hub.repositories.items()}


def test_nothing_is_deployed_where_no_repository_is(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    assert registry.current() is None and registry.deployed() is None and registry.history() == []


def test_a_commit_deploys_every_repository_by_one_commit_each(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    assert contents(registry) == (FIRST, FIRST, FIRST)
    assert commits(hub) == {MODEL: 1, f"{MODEL}-gguf": 1, f"{MODEL}-sft": 1, DATA: 1}
    assert (hub.repositories[DATA].type, hub.repositories[MODEL].type) == ("dataset", "model")


def test_the_models_commit_is_the_last_and_names_the_others(hub: Hub, tmp_path: Path) -> None:
    publish(hub_registry(hub, tmp_path), FIRST, None)
    assert hub.asked("/commit/main")[-1].startswith(PUSH_TO_MODEL)
    record = json.loads(hub.repositories[MODEL].files["publication.json"])
    others = {name: repository.head.id for name, repository in hub.repositories.items() if name != MODEL}
    assert record["commits"] == others


def test_a_verdict_is_a_tag_on_the_commit_it_allowed(hub: Hub, tmp_path: Path) -> None:
    publish(hub_registry(hub, tmp_path), FIRST, None)
    assert hub.repositories[MODEL].tags == {"verdict-v11111111": hub.repositories[MODEL].head.id}


def test_a_second_revision_replaces_the_files_of_the_first(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    publish(registry, SECOND, FIRST)
    assert contents(registry) == (SECOND, SECOND, SECOND)
    assert set(hub.repositories[f"{MODEL}-gguf"].files) == {"tiny-22222222.gguf"}
    assert [p.revision for p in registry.history()] == [SECOND, FIRST]


def test_a_repository_whose_content_stays_gets_no_commit(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    publish(registry, SECOND, FIRST)
    assert commits(hub) == {MODEL: 2, f"{MODEL}-gguf": 2, f"{MODEL}-sft": 1, DATA: 2}


def test_another_machine_fetches_the_deployed_files_once(hub: Hub, tmp_path: Path) -> None:
    publish(hub_registry(hub, tmp_path / "here"), FIRST, None)
    there = hub_registry(hub, tmp_path / "there")
    assert contents(there) == (FIRST, FIRST, FIRST)
    fetched = len(hub.asked("GET /objects/"))
    assert fetched == 2 and contents(there) == (FIRST, FIRST, FIRST)
    assert len(hub.asked("GET /objects/")) == fetched


def test_what_was_pushed_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    assert contents(registry) == (FIRST, FIRST, FIRST)
    assert hub.asked("GET /objects/") == []


def test_readers_find_the_old_files_while_a_publication_is_half_done(hub: Hub, tmp_path: Path) -> None:
    registry, seen = hub_registry(hub, tmp_path / "here"), []
    publish(registry, FIRST, None)
    reader = hub_registry(hub, tmp_path / "there")
    with registry.staging(SECOND) as staged:
        stage(staged, SECOND)
        hub.faults.append(Fault("5xx", PUSH_TO_MODEL, times=5))
        with pytest.raises(RegistryUnreachableError):
            registry.commit(staged, publication(SECOND, FIRST))
        seen.append(contents(reader))
    assert hub.repositories[f"{MODEL}-gguf"].head.files["tiny-22222222.gguf"]
    assert seen == [(FIRST, FIRST, FIRST)]


def test_a_commit_onto_another_revision_than_its_parent_is_refused(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    with pytest.raises(RevisionConflictError, match=f"{FIRST} is deployed, no longer None"):
        publish(registry, SECOND, None)
    assert commits(hub)[f"{MODEL}-gguf"] == 1


@pytest.mark.parametrize("name", [MODEL, f"{MODEL}-gguf", DATA])
def test_a_push_that_came_in_between_wins(hub: Hub, tmp_path: Path, name: str) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)

    def push_first(request: str) -> None:
        if request.endswith(f"/{name}/commit/main"):
            hub.on_request = lambda _: None
            hub.repositories[name].push({**hub.repositories[name].head.files, "theirs.txt": b"theirs"})

    hub.on_request = push_first
    with pytest.raises(RevisionConflictError, match=f"{name}: someone else pushed"):
        publish(registry, SECOND, FIRST)
    assert contents(registry) == (FIRST, FIRST, FIRST)
    assert "theirs.txt" in hub.repositories[name].files


def test_a_second_publication_from_this_machine_is_refused_while_one_runs(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    with registry.staging(FIRST), pytest.raises(RegistryBusyError):
        publish(registry, SECOND, None)


REQUESTS = [
    "POST /api/repos/create",
    "GET .*/tree/",
    PUSH_TO_MODEL,
    "POST .*/tag/",
    "PUT /objects/",
    "lfs/objects/batch",
]


@pytest.mark.parametrize("kind", ["5xx", "drop", "lose"])
@pytest.mark.parametrize("pattern", REQUESTS)
def test_a_failure_that_passes_is_survived(hub: Hub, tmp_path: Path, kind: str, pattern: str) -> None:
    registry = hub_registry(hub, tmp_path)
    hub.faults.append(Fault(kind, pattern))  # type: ignore[arg-type]
    publish(registry, FIRST, None)
    assert hub.faults[0].times == 0
    assert contents(registry) == (FIRST, FIRST, FIRST)
    assert commits(hub) == {MODEL: 1, f"{MODEL}-gguf": 1, f"{MODEL}-sft": 1, DATA: 1}


@pytest.mark.parametrize("kind", ["5xx", "drop", "cut"])
def test_a_download_that_fails_is_taken_up_again(hub: Hub, tmp_path: Path, kind: str) -> None:
    publish(hub_registry(hub, tmp_path / "here"), FIRST, None)
    hub.faults.append(Fault(kind, "(GET /objects/|GET .*/resolve/.*/README.md)", times=2))  # type: ignore[arg-type]
    assert contents(hub_registry(hub, tmp_path / "there")) == (FIRST, FIRST, FIRST)


def test_a_slow_answer_counts_as_a_failure(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path, answer_seconds=0.3)
    hub.faults.append(Fault("slow", f"GET /api/models/{MODEL}/revision", seconds=1.0))
    assert registry.current() is None
    assert len(hub.asked(f"GET /api/models/{MODEL}/revision")) == 2


def test_a_hub_that_stays_away_is_told_after_the_last_attempt(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path, attempts=3)
    hub.faults.append(Fault("5xx", times=float("inf")))
    with pytest.raises(RegistryUnreachableError, match=rf"{MODEL}: no answer from {hub.endpoint} in 3 attempts: .*503"):
        registry.current()
    assert len(hub.requests) == 3


def test_a_large_file_goes_in_parts(hub: Hub, tmp_path: Path) -> None:
    hub.part_bytes = 16
    hub.faults.append(Fault("drop", "PUT /parts/.*/2"))
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    assert len(hub.asked("PUT /parts/")) == 4  # 40 bytes in three parts, one of them twice; both files are the same
    assert contents(hub_registry(hub, tmp_path / "there")) == (FIRST, FIRST, FIRST)


def test_a_repeated_publication_pushes_only_what_is_missing(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    hub.faults.append(Fault("5xx", PUSH_TO_MODEL, times=5))
    with pytest.raises(RegistryUnreachableError):
        publish(registry, FIRST, None)
    assert registry.current() is None
    before = len(hub.requests)
    publish(registry, FIRST, None)
    again = [request for request in hub.requests[before:] if request.startswith(("PUT", "POST"))]
    assert not [request for request in again if request.startswith("PUT")]
    assert [request for request in again if "/commit/" in request] == [f"{PUSH_TO_MODEL}/main"]


def test_a_tag_that_a_killed_publication_left_out_is_made_up_for(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    hub.repositories[MODEL].tags.clear()
    registry.recover()
    assert hub.repositories[MODEL].tags == {"verdict-v11111111": hub.repositories[MODEL].head.id}


def test_a_rollback_copies_on_the_hub_and_uploads_nothing(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    publish(registry, SECOND, FIRST)
    uploads = len(hub.asked("PUT /"))
    deployed = roll_back(registry, MODEL, FIRST, "drops quoted phrases")
    assert len(hub.asked("PUT /")) == uploads
    assert contents(registry) == (deployed.revision, FIRST, FIRST)
    assert deployed.revision not in (FIRST, SECOND)
    current = registry.current()
    assert current is not None
    assert (current.restores, current.reason, current.parent) == (FIRST, "drops quoted phrases", SECOND)
    assert [p.revision for p in registry.history()] == [deployed.revision, SECOND, FIRST]
    assert roll_back(registry, MODEL, FIRST[:8], "drops quoted phrases") == deployed


def test_a_change_by_hand_to_a_card_keeps_the_revision(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    model = hub.repositories[MODEL]
    model.push({**model.head.files, "README.md": b"# Better words"})
    assert [p.revision for p in registry.history()] == [FIRST]
    assert contents(registry) == (FIRST, FIRST, FIRST)
    publish(registry, SECOND, FIRST)
    assert contents(registry) == (SECOND, SECOND, SECOND)


def test_a_dry_run_tells_what_would_change_and_pushes_nothing(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    publish(registry, FIRST, None)
    before = commits(hub)
    dry_run = DryRun(registry)
    publish(dry_run, SECOND, FIRST)
    assert commits(hub) == before and contents(registry) == (FIRST, FIRST, FIRST)
    changes = {change.repository: change for change in dry_run.changes}
    assert set(changes[MODEL].written) == {"model.safetensors", "README.md"}
    gguf, adapter = changes[f"{MODEL}-gguf"], changes[f"{MODEL}-sft"]
    assert (gguf.written, gguf.removed) == ({"tiny-22222222.gguf": 40}, ["tiny-11111111.gguf"])
    assert (adapter.written, adapter.unchanged) == ({}, 1)


def test_a_dry_run_needs_no_repository(hub: Hub, tmp_path: Path) -> None:
    dry_run = DryRun(hub_registry(hub, tmp_path))
    publish(dry_run, FIRST, None)
    assert hub.repositories == {} and len(dry_run.changes) == 4


def test_garbage_is_cached_files_of_old_revisions_and_history_stays(hub: Hub, tmp_path: Path) -> None:
    registry = hub_registry(hub, tmp_path)
    for revision, parent in ((FIRST, None), (SECOND, FIRST), (THIRD, SECOND)):
        publish(registry, revision, parent)
    told = registry.collect(keep=1, dry_run=True)
    assert registry.collect(keep=1, dry_run=False) == told
    assert len(told.removed) == 6 and told.bytes > 0 and "The Hub keeps every revision" in told.note
    assert registry.collect(keep=1, dry_run=False).removed == []
    assert hub.asked("GET /objects/") == [] and contents(registry) == (THIRD, THIRD, THIRD)
    assert [p.revision for p in registry.history()] == [THIRD, SECOND, FIRST]


def test_repositories_are_private_where_the_config_says_so(hub: Hub, tmp_path: Path) -> None:
    publish(hub_registry(hub, tmp_path, private=True), FIRST, None)
    assert all(repository.private for repository in hub.repositories.values())


def test_a_revision_that_names_no_companion_is_not_deployable(hub: Hub, tmp_path: Path) -> None:
    record = publication(FIRST, None).model_dump_json().encode()
    hub.create(MODEL).push({"publication.json": record})
    with pytest.raises(ArtifactError, match=f"names no commit of {MODEL}-gguf"):
        hub_registry(hub, tmp_path).deployed()


def test_without_a_token_nothing_is_pushed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match=r"set HF_TOKEN, or hub\.token_file"):
        publish(hub_registry(hub, tmp_path), FIRST, None)
    assert hub.repositories == {}


def test_a_token_file_goes_before_the_environment(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    (tmp_path / "token").write_text(hub.token + "\n")
    publish(hub_registry(hub, tmp_path, token_file=tmp_path / "token"), FIRST, None)
    assert commits(hub)[MODEL] == 1


@pytest.mark.parametrize("text", [None, "", "two words"])
def test_a_token_file_without_a_token_is_refused(hub: Hub, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    with pytest.raises(UserError, match=r"token.*hub\.token_file") as refused:
        hub_registry(hub, tmp_path, token_file=tmp_path / "token")
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize("fault", ["none", "5xx", "wrong token"])
def test_the_token_is_in_no_log_error_or_representation(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_DEBUG", True)
    caplog.set_level(logging.DEBUG)
    logging.getLogger("huggingface_hub").setLevel(logging.DEBUG)
    token = hub.token
    if fault == "wrong token":
        token = "hf_a_wrong_one"
        monkeypatch.setenv("HF_TOKEN", token)
    registry = hub_registry(hub, tmp_path, attempts=2)
    if fault == "5xx":
        hub.faults.append(Fault("5xx", "commit/main", times=float("inf")))
    told = ""
    try:
        publish(registry, FIRST, None)
    except UserError as error:
        told = str(error)
    assert bool(told) == (fault != "none")
    seen = [told, caplog.text, repr(vars(registry)), repr(vars(registry._client)), repr(registry)]
    assert not [text for text in seen if token in text]


def test_the_signature_of_an_address_is_in_no_log(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hub.faults.append(Fault("5xx", "PUT /objects/"))
    publish(hub_registry(hub, tmp_path), FIRST, None)
    assert "503 thrown while requesting PUT" in caplog.text
    assert SIGNATURE not in caplog.text
