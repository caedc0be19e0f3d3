"""A rollback: a new revision with an earlier one's content, so that history only ever grows."""

from datetime import UTC, datetime

from publisher.admission import RefusedError
from publisher.registry import Deployment, Publication, Registry
from qmd_schema.artifacts import sha256_json

_LONGEST_REASON = 300


def roll_back(registry: Registry, repository: str, revision: str, reason: str) -> Deployment:
    """Deploys an earlier revision's content again; the deployment that is there if that was done before.

    revision: its first eight hex digits or more. Raises RefusedError for what cannot be rolled back to.
    """
    reason = " ".join(reason.split())
    if not reason or len(reason) > _LONGEST_REASON:
        raise RefusedError(f"a rollback wants a reason of at most {_LONGEST_REASON} characters, for its record.")
    if repository != registry.repository:
        raise RefusedError(
            f"{repository}: not the model's repository of this registry, {registry.repository}. "
            "What is published with the model is rolled back with it."
        )
    history = registry.history()
    if not history:
        raise RefusedError(f"{repository}: nothing is deployed, so there is nothing to roll back.")
    current, target = history[0], _find(revision, history)
    if target.revision == current.revision:
        raise RefusedError(f"{repository}: revision {target.revision} is the one that is deployed.")
    if target.revision == current.restores:
        registry.recover()
        if deployed := registry.deployed():
            return deployed
    return registry.restore(target, _plan(target, current.revision, reason))


def _find(revision: str, history: list[Publication]) -> Publication:
    found = [p for p in history if p.revision.startswith(revision)] if len(revision) >= 8 else []
    if len(found) != 1:
        kept = ", ".join(p.revision[:8] for p in history)
        raise RefusedError(f"{revision!r} names no revision that is kept; there are {kept}. See `foundry history`.")
    return found[0]


def _plan(target: Publication, parent: str, reason: str) -> Publication:
    """The record of the revision to be; the same for the same rollback, but for the time."""
    return target.model_copy(
        update={
            "revision": sha256_json([parent, "restores", target.revision, reason])[:40],
            "parent": parent,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "commits": {},
            "restores": target.revision,
            "reason": reason,
        }
    )
