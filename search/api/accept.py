"""Accept a change of a sweep's request that was made by hand."""

from __future__ import annotations

from pathlib import Path

from search.folders import SweepFolder
from search.lease import leased
from search.running.session import write_errors_explained
from search.study.folder import open_sweep, read_request, record_request


def accept_request(folder: str | Path) -> None:
    """Take what was changed in the `sweep.json` of a sweep, if `resume` may change it too.

    Raises:
        SweepFolderError: another setting was changed, the folder holds no sweep or a damaged file,
            or another process runs it.
    """
    folder = Path(folder)
    read_request(folder)
    with write_errors_explained(folder), leased(SweepFolder(folder).lease, waits=False):
        record_request(folder, open_sweep(folder, accept=True).ledger)
