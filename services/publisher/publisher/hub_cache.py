"""Files of Hub repositories on this machine: `<cache>/files/<name>/<commit>/`, whole or not there."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from publisher.hub_client import HubClient, HubRepository
from publisher.staging import seal

_PARTIAL = ".partial"


class HubCache:
    """Commits fetched from the Hub, or left by their publication. A folder, once there, never changes."""

    def __init__(self, folder: Path, client: HubClient) -> None:
        self._files = folder.absolute() / "files"
        self._client = client

    def folder(self, repository: HubRepository, commit: str) -> Path:
        """The files of a commit, fetched where they are not here yet."""
        target = self._files / repository.name / commit
        if not target.is_dir():
            partial = target.with_name(commit + _PARTIAL)
            self._client.download(repository, commit, partial)
            shutil.rmtree(partial / ".cache", ignore_errors=True)
            self._settle(partial, target)
        return target

    def adopt(self, repository: HubRepository, commit: str, folder: Path) -> None:
        """Takes over a folder whose files are those of a commit."""
        target = self._files / repository.name / commit
        target.parent.mkdir(parents=True, exist_ok=True)
        self._settle(folder, target)

    def others(self, wanted: Iterable[tuple[str, str]]) -> list[Path]:
        """Folders of all commits but the wanted ones, given by repository name and commit."""
        kept = set(wanted)
        folders = (p for p in sorted(self._files.glob("*/*")) if p.is_dir())
        return [p for p in folders if (p.parent.name, p.name.removesuffix(_PARTIAL)) not in kept]

    def _settle(self, folder: Path, target: Path) -> None:
        """Renames a finished folder into its place, which another process may have filled meanwhile."""
        seal(folder)
        if target.is_dir():
            shutil.rmtree(folder)
        else:
            folder.rename(target)


def remove(folder: Path) -> None:
    """Removes a folder of the cache; whoever looks for it meanwhile finds all of it or nothing."""
    doomed = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".doomed-"))
    folder.rename(doomed / folder.name)
    shutil.rmtree(doomed)
