"""The request of a sweep, and its folder as it can be read."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist_core.config.codec import from_dict, to_dict
from generalist_core.data.splits import Dataset
from generalist_core.fingerprints import split_fingerprint
from generalist_core.models.build import ModelFactory
from generalist_core.randomness import derive_seed
from generalist_core.validation import InvalidConfigError, require
from search.config import CustomParts, SweepConfig
from search.errors import SweepFolderError
from search.files import read_json, write_json
from search.front.front import Front
from search.front.pick import Pick, pick
from search.study.ledger import Ledger
from search.study.records import TrialCounts
from search.study.results import Results
from search.study.samplers import N_STARTUP, build_samplers
from search.study.storage import open_storage

if TYPE_CHECKING:
    import pandas as pd

JOURNAL = "study.journal"

REQUEST = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep in its folder, finished or not."""

    folder: Path
    config: SweepConfig
    ledger: Ledger = field(repr=False)
    custom: CustomParts = field(default_factory=CustomParts, repr=False)

    @property
    def results(self) -> Results:
        """What came of the trials so far."""
        return self.ledger.results

    @property
    def front(self) -> Front:
        """The operating points that no other dominates."""
        return self.results.front()

    @property
    def hypervolume(self) -> float:
        """What the front is worth."""
        return self.front.hypervolume

    @property
    def trials(self) -> pd.DataFrame:
        """One row an asked trial, see `search.study.tables.trials_table`."""
        from search.study.tables import trials_table

        return trials_table(self.results)

    @property
    def points(self) -> pd.DataFrame:
        """One row an operating point, see `search.study.tables.points_table`."""
        from search.study.tables import points_table

        return points_table(self.results)

    @property
    def counts(self) -> TrialCounts:
        """How the trials ended."""
        return self.results.counts()

    def pick(self, spec: str) -> Pick:
        """One point of the front and the reason, see `search.front.pick.pick`."""
        return pick(self.front, spec, self.results.points())


def open_sweep(folder: str | Path) -> Sweep:
    """Open a sweep's folder to read it.

    Raises:
        SweepFolderError: no sweep there, or a damaged one.
    """
    folder = Path(folder)
    config, study = read_request(folder)
    if config.storage is None and not (folder / JOURNAL).is_file():
        raise SweepFolderError(f"{folder} must hold the {JOURNAL} of a sweep, but does not.")
    return Sweep(folder=folder, config=config, ledger=open_ledger(folder, config, study))


def open_ledger(folder: Path, config: SweepConfig, study: str, *, is_new: bool = False) -> Ledger:
    """The ledger of a sweep, new or as it is."""
    seed = derive_seed(config.seed, "sampler") % 2**32
    return Ledger(
        open_storage(config.storage, folder / JOURNAL),
        config.base.evaluation.objectives,
        sampler_of=build_samplers(config.sampler, seed=seed, n_startup=N_STARTUP),
        floors=config.at_least,
        study=study,
        is_new=is_new,
    )


def write_request(folder: Path, config: SweepConfig, study: str, custom: Mapping[str, Any]) -> None:
    """Write what was asked, and under which versions of what."""
    request = {"request": to_dict(config), "study": study, "custom": dict(custom)}
    write_json(folder / REQUEST, {**request, "environment": _environment()})


def read_request(folder: Path) -> tuple[SweepConfig, str]:
    """What was asked, and the name of its study.

    Raises:
        SweepFolderError: no sweep there, or a damaged one.
    """
    path = folder / REQUEST
    stored = read_json(path)
    if not (isinstance(stored, dict) and {"request", "study", "custom"} <= set(stored)):
        raise SweepFolderError(f"{path} must hold a sweep's request, but does not.")
    try:
        return from_dict(stored["request"], SweepConfig), str(stored["study"])
    except InvalidConfigError as error:
        raise SweepFolderError(f"{path} must hold a sweep's request, but: {error}") from error


def custom_parts(data: Dataset | None, model: ModelFactory | None) -> dict[str, Any]:
    """Which parts were the caller's own: a later `verify` needs the same."""
    return {
        "data": split_fingerprint(data.train) if data is not None else None,
        "model": model is not None,
    }


def require_custom_parts(folder: Path, data: Dataset | None, model: ModelFactory | None) -> None:
    """Check that a sweep over the caller's own data or model is used with the same."""
    used, given = read_json(folder / REQUEST)["custom"], custom_parts(data, model)
    cure = "Call it from Python with data= and model= as in the sweep."
    if used["data"] is not None or data is not None:
        same = used["data"] in (None, given["data"])
        require(same, "the data of the sweep", "others", cure)
    require(model is not None or not used["model"], "the model of the sweep", "none", cure)


def _environment() -> dict[str, str]:
    """What a result depends on beside the request."""
    packages = ("generalist-search", "torch", "torchvision", "ray", "optuna", "moocore")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "command": shlex.join(sys.orig_argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": commit.stdout.strip() or "unknown",
        **{package: version(package) for package in packages},
    }
