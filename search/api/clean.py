"""Free the disk of what a sweep no longer needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from search.errors import SweepFolderError
from search.files import disk_bytes
from search.folders import SweepFolder
from search.lease import is_held, leased
from search.running.housekeeping import removable
from search.study.folder import open_sweep


def clean(folder: str | Path, *, dry_run: bool = False) -> dict[str, int]:
    """Remove what no command needs any more, see `search.running.housekeeping.removable`.

    Args:
        folder: the folder of a sweep that does not run.
        dry_run: only say what would be removed; nothing in the folder is written.

    Returns:
        The bytes by the kind of what is removed.

    Raises:
        SweepFolderError: the folder holds no sweep, or a process runs it.
    """
    folder = Path(folder)
    lease = SweepFolder(folder).lease
    if dry_run:
        if is_held(lease):
            raise SweepFolderError(
                f"{folder} must not be cleaned while its sweep runs, but it runs."
            )
        return _sizes(_removable(folder))
    open_sweep(folder)  # before anything is written there
    with leased(lease, waits=False):
        found = _removable(folder)
        sizes = _sizes(found)
        for path in (path for paths in found.values() for path in paths):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return sizes


def _removable(folder: Path) -> dict[str, list[Path]]:
    return removable(folder, open_sweep(folder).results)


def _sizes(found: dict[str, list[Path]]) -> dict[str, int]:
    return {kind: sum(map(disk_bytes, paths)) for kind, paths in found.items() if paths}
