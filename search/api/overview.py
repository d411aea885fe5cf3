"""The sweeps below a folder, each in a few numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from generalist_core.validation import InvalidConfigError
from search.errors import SweepFolderError
from search.folders import SweepFolder
from search.lease import is_held
from search.study.folder import open_sweep
from search.study.records import TrialCounts
from search.wording import printable


@dataclass(frozen=True, kw_only=True)
class SweepOverview:
    """A sweep in a few numbers: its folder, data and space, and how far it is.

    `trials` is the number that was asked for (None: as many as the budget or the time allows), and
    `forward_images` the cost of the trials that have ended.
    """

    folder: str
    data: str
    space: str
    is_running: bool
    has_ended: bool
    counts: TrialCounts
    trials: int | None
    hypervolume: float
    forward_images: float

    @property
    def state(self) -> str:
        """Whether it runs, has ended or was interrupted, perhaps with unfinished trials."""
        if self.is_running:
            return "running"
        if self.counts.unfinished:
            return f"{self.counts.unfinished} unfinished"
        return "ended" if self.has_ended else "interrupted"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def list_sweeps(folder: str | Path = ".") -> dict[str, SweepOverview | str]:
    """The sweeps in a folder and below it, by their folders; the reason of one that does not open.

    Nothing is written. Hidden folders and what is inside of a sweep are left out.

    Raises:
        SweepFolderError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise SweepFolderError(f"{folder} must be a folder, but is none.")
    return {str(place): _overview(place) for place in _folders(Path(folder))}


def _folders(folder: Path) -> Iterator[Path]:
    for place, inside, files in os.walk(folder):
        if SweepFolder(Path(place)).request.name in files:
            inside.clear()
            yield Path(place)
        inside[:] = sorted(name for name in inside if not name.startswith("."))


def _overview(folder: Path) -> SweepOverview | str:
    try:
        sweep = open_sweep(folder)
    except (SweepFolderError, InvalidConfigError, PermissionError) as error:
        return str(error)
    return SweepOverview(
        folder=str(folder),
        data=sweep.config.base.data.name,
        space=sweep.config.space,
        is_running=is_held(sweep.files.lease),
        has_ended=sweep.ledger.has_ended,
        counts=sweep.counts,
        trials=sweep.config.trials,
        hypervolume=sweep.hypervolume,
        forward_images=sweep.results.cost()["forward_images"],
    )


def sweeps_table(sweeps: Mapping[str, SweepOverview | str], below: Path) -> Table:
    """One row per sweep by its folder below `below`, with the reason of one that did not open."""
    table = Table(title_justify="left", title=f"Sweeps in {printable(str(below.absolute()))}")
    table.add_column("sweep", overflow="fold")
    table.add_column("data", overflow="fold")
    for column in ("trials", "stopped", "failed", "hypervolume", "cost"):
        table.add_column(column, justify="right")
    table.add_column("state")
    for folder, sweep in sweeps.items():
        name = printable(os.path.relpath(folder, below))
        if isinstance(sweep, str):
            table.add_row(name, *[""] * 6, f"cannot be opened: {printable(sweep)}")
            continue
        counts, asked = sweep.counts, "" if sweep.trials is None else f"/{sweep.trials}"
        table.add_row(
            name,
            printable(Path(sweep.data).name),
            f"{counts.total}{asked}",
            str(counts.stopped_early),
            str(counts.failed),
            f"{sweep.hypervolume:.4f}",
            f"{sweep.forward_images:.3g}",
            sweep.state,
        )
    return table
