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

from generalist_core.codec import from_dict, to_dict
from generalist_core.config import TrainConfig
from generalist_core.data import Dataset
from generalist_core.models import ModelFactory
from generalist_core.randomness import derive_seed
from generalist_core.validation import (
    InvalidConfigError,
    require,
    require_one_of,
    require_positive,
)
from generalist_core.warmup import split_fingerprint
from search.early_stopping import Halving
from search.errors import SweepFolderError
from search.files import read_json, write_json
from search.front import Front
from search.ledger import Ledger
from search.limits import Limits
from search.pick import Pick, pick
from search.proposer import Branching
from search.records import Floor, TrialCounts
from search.resources import Resources
from search.samplers import N_STARTUP, build_samplers
from search.stopping_when_done import StopWhenDone
from search.storage import open_storage
from search.warmups import WarmupConfig
from spaces import Space

if TYPE_CHECKING:
    import pandas as pd

JOURNAL = "study.journal"
REQUEST = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The whole request. `config` is what the space starts from; its seed is that of all trials.

    `storage` is an Optuna storage URL, by default a journal in the output folder. `seed` is the
    sampler's. `repeats` trains every configuration on the front again with so many other seeds.
    `at_least` is the region of interest: it directs the sampler, and the hypervolume counts from
    there. Trials share their experts' warm-ups, in the output folder or in the store `warmups`,
    which other sweeps may use too. `branching` proposes further trials on warm-ups that pay,
    `early_stopping` ends weak trials (None: not), `stop_when` the whole sweep before its `trials`.
    `warm_start` names folders of earlier sweeps, or CSV files, whose points the sampler starts
    from. `limits` say what is put up with. With a `round_size` the sweep gives the same points
    whatever the timing, see `search.searcher`.
    """

    config: TrainConfig
    space: str = "full"
    trials: int = 20
    sampler: str = "tpe"
    seed: int = 0
    resources: Resources = field(default_factory=Resources)
    time_budget_s: float | None = None
    repeats: int = 0
    storage: str | None = None
    at_least: tuple[Floor, ...] = ()
    stop_when: StopWhenDone | None = None
    warm_start: tuple[str, ...] = ()
    shares_warmups: bool = True
    warmups: WarmupConfig | None = None
    branching: Branching | None = None
    early_stopping: Halving | None = field(default_factory=Halving)
    limits: Limits = field(default_factory=Limits)
    round_size: int | None = None

    def __post_init__(self) -> None:
        require_positive("trials", self.trials)
        for floor in self.at_least:
            require_one_of("at_least", floor.objective, self.config.evaluation.objectives)
        build_samplers(self.sampler, seed=0, n_startup=1)
        require(self.repeats >= 0, "repeats >= 0", f"repeats={self.repeats}")
        budget = self.time_budget_s
        require(budget is None or budget > 0, "time_budget_s > 0", f"time_budget_s={budget}")
        size = self.round_size
        require(size is None or size > 0, "round_size > 0", f"round_size={size}")

    def store_in(self, folder: Path) -> WarmupConfig | None:
        """The store of warm-ups of a sweep in that folder; None if trials do not share them."""
        own = WarmupConfig(folder=str(folder / "warmups"))
        return (self.warmups or own) if self.shares_warmups else None


@dataclass(frozen=True, kw_only=True)
class OwnParts:
    """What the caller brings from Python: a space, images, a factory of models; None if not."""

    space: Space | None = None
    data: Dataset | None = None
    model: ModelFactory | None = None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep in its folder, finished or not."""

    folder: Path
    config: SweepConfig
    ledger: Ledger = field(repr=False)
    own: OwnParts = field(default_factory=OwnParts, repr=False)

    @property
    def front(self) -> Front:
        """The operating points that no other dominates."""
        return self.ledger.front()

    @property
    def hypervolume(self) -> float:
        """What the front is worth."""
        return self.front.hypervolume

    @property
    def trials(self) -> pd.DataFrame:
        """One row an asked trial, see `search.tables.trials_table`."""
        from search.tables import trials_table

        return trials_table(self.ledger)

    @property
    def points(self) -> pd.DataFrame:
        """One row an operating point, see `search.tables.points_table`."""
        from search.tables import points_table

        return points_table(self.ledger)

    @property
    def counts(self) -> TrialCounts:
        """How the trials ended."""
        return self.ledger.counts()

    def pick(self, spec: str) -> Pick:
        """One point of the front and the reason, see `search.pick.pick`."""
        return pick(self.front, spec, self.ledger.points())

    def report(self) -> Front:
        """Write the report into the folder again."""
        from search.report import write_report

        return write_report(self.folder, self.ledger)

    def export(self, spec: str, path: str | Path, **options: Any) -> dict[str, Any]:
        """Write the model of a point and its card; `options` as of `search.export.export`."""
        from search.export import export

        return export(self, spec, Path(path), **options)

    def explain(self, trial: str | int) -> str:
        """One trial's story, see `search.explain.explain`."""
        from search.explain import explain

        return explain(self, trial)


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
        config.config.evaluation.objectives,
        sampler_of=build_samplers(config.sampler, seed=seed, n_startup=N_STARTUP),
        floors=config.at_least,
        study=study,
        is_new=is_new,
    )


def write_request(folder: Path, config: SweepConfig, study: str, own: Mapping[str, Any]) -> None:
    """Write what was asked, and under which versions of what."""
    request = {"request": to_dict(config), "study": study, "own": dict(own)}
    write_json(folder / REQUEST, {**request, "environment": _environment()})


def read_request(folder: Path) -> tuple[SweepConfig, str]:
    """What was asked, and the name of its study.

    Raises:
        SweepFolderError: no sweep there, or a damaged one.
    """
    path = folder / REQUEST
    stored = read_json(path)
    if not (isinstance(stored, dict) and {"request", "study", "own"} <= set(stored)):
        raise SweepFolderError(f"{path} must hold a sweep's request, but does not.")
    try:
        return from_dict(stored["request"], SweepConfig), str(stored["study"])
    except InvalidConfigError as error:
        raise SweepFolderError(f"{path} must hold a sweep's request, but: {error}") from error


def own_parts(data: Dataset | None, model: ModelFactory | None) -> dict[str, Any]:
    """Which parts were the caller's own: a later `verify` needs the same."""
    return {
        "data": split_fingerprint(data.train) if data is not None else None,
        "model": model is not None,
    }


def require_own_parts(folder: Path, data: Dataset | None, model: ModelFactory | None) -> None:
    """Check that a sweep over the caller's own data or model is used with the same."""
    used, given = read_json(folder / REQUEST)["own"], own_parts(data, model)
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
