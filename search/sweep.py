"""A sweep: a configuration, a space and a budget in; trials on Ray; the front out."""

from __future__ import annotations

import platform
import subprocess
import uuid
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from generalist_core.codec import from_dict, to_dict
from generalist_core.config import TrainConfig
from generalist_core.data import Dataset
from generalist_core.datasets import load_dataset
from generalist_core.device import resolve_device
from generalist_core.models import ModelFactory
from generalist_core.randomness import derive_seed
from generalist_core.trainer import GeneralistTrainer
from generalist_core.validation import require, require_one_of, require_positive
from generalist_core.warmup import split_fingerprint
from search.cluster import Resources, running_ray
from search.early_stopping import Halving, Rungs
from search.errors import SweepFolderError, SweepInterruptedError
from search.files import create_folder, read_json, write_json
from search.front import Front
from search.ledger import Floor, Ledger, Observation, TrialCounts, open_storage
from search.monitor import Monitor
from search.proposer import Branching, Proposer
from search.repeats import repeat_front
from search.report import write_report
from search.samplers import N_STARTUP, build_sampler
from search.searcher import Searcher
from search.stopping_when_done import StopWhenDone
from search.tuning import run_on_ray
from search.warm_start import read_observations
from search.warmups import WarmupConfig
from spaces import Space, base_suggestion, load_space, paper_suggestion

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
    from.
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

    def __post_init__(self) -> None:
        require_positive("trials", self.trials)
        for floor in self.at_least:
            require_one_of("at_least", floor.objective, self.config.evaluation.objectives)
        build_sampler(self.sampler, seed=0, n_startup=1)
        require(self.repeats >= 0, "repeats >= 0", f"repeats={self.repeats}")
        budget = self.time_budget_s
        require(budget is None or budget > 0, "time_budget_s > 0", f"time_budget_s={budget}")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep in its folder, finished or not."""

    folder: Path
    config: SweepConfig
    ledger: Ledger = field(repr=False)

    @property
    def front(self) -> Front:
        """The operating points that no other dominates."""
        return self.ledger.front()

    @property
    def counts(self) -> TrialCounts:
        """How the trials ended."""
        return self.ledger.counts()


def open_sweep(folder: Path) -> Sweep:
    """Open a sweep's folder to read it.

    Raises:
        SweepFolderError: no sweep there, or a damaged one.
    """
    stored = read_json(folder / REQUEST)
    if not (isinstance(stored, dict) and {"request", "study"} <= set(stored)):
        raise SweepFolderError(f"{folder / REQUEST} must hold a sweep's request, but does not.")
    config = from_dict(stored["request"], SweepConfig)
    if config.storage is None and not (folder / JOURNAL).is_file():
        raise SweepFolderError(f"{folder} must hold the {JOURNAL} of a sweep, but does not.")
    ledger = Ledger(
        open_storage(config.storage, folder / JOURNAL),
        config.config.evaluation.objectives,
        floors=config.at_least,
        study=stored["study"],
        is_new=False,
    )
    return Sweep(folder=folder, config=config, ledger=ledger)


def own_parts(data: Dataset | None, model: ModelFactory | None) -> dict[str, Any]:
    """Which parts were the caller's own: a later `verify` needs the same."""
    return {
        "data": split_fingerprint(data.train) if data is not None else None,
        "model": model is not None,
    }


def sweep(
    config: SweepConfig,
    folder: Path,
    *,
    space: Space | None = None,
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    console: Console | None = None,
) -> Sweep:
    """Run a sweep in a new folder and write its report.

    Args:
        config: the request; its `space` is but a name where `space` is given.
        folder: a new or empty folder; on a cluster of several machines one that all of them share.
        space: a search space as a function.
        data: the user's own images; by default those that the configuration names.
        model: the user's own `(n_classes, (c, h, w)) -> torch.nn.Module`.
        console: where progress is told; by default standard error.

    Raises:
        InvalidConfigError: a setting that cannot work; found before any trial starts.
        SweepFolderError: the folder holds something already, or cannot be written.
        SweepInterruptedError: Ctrl-C ended it; the report of what there is has been written.
    """
    folder = folder.absolute()
    space = space or load_space(config.space)
    first, second = (make(space, config.config) for make in (paper_suggestion, base_suggestion))
    earlier = [seen for name in config.warm_start for seen in _earlier(Path(name), config)]
    _check_that_it_can_start(config, data, model)
    if config.storage is not None:
        open_storage(config.storage, folder / JOURNAL)
    create_folder(folder)
    ledger = _begin(config, folder, own_parts(data, model))
    for seen in earlier:
        ledger.observe(seen, space, config.config)
    for params, ratio in [first] if first == second else [first, second]:
        ledger.enqueue(params, ratio, len(config.config.experts))
    found = Sweep(folder=folder, config=config, ledger=ledger)
    console = console or Console(stderr=True)
    try:
        with running_ray(config.resources) as n_workers:
            _run_trials(found, n_workers, space, data, model, console)
            if config.repeats:
                repeat_front(folder, found.front, config, data=data, model=model, console=console)
    finally:
        write_report(folder, ledger)
    return found


def _begin(config: SweepConfig, folder: Path, own: dict[str, Any]) -> Ledger:
    """Write the request, and begin the study."""
    sampler = build_sampler(
        config.sampler,
        seed=derive_seed(config.seed, "sampler") % 2**32,
        n_startup=N_STARTUP,
    )
    study = f"{folder.name}-{uuid.uuid4().hex[:8]}"
    request = {"request": to_dict(config), "study": study, "own": own}
    write_json(folder / REQUEST, {**request, "environment": _environment()})
    return Ledger(
        open_storage(config.storage, folder / JOURNAL),
        config.config.evaluation.objectives,
        sampler=sampler,
        floors=config.at_least,
        study=study,
    )


def _run_trials(
    found: Sweep,
    n_workers: int,
    space: Space,
    data: Dataset | None,
    model: ModelFactory | None,
    console: Console,
) -> None:
    config, folder, ledger = found.config, found.folder, found.ledger
    stopping = config.early_stopping
    searcher = Searcher(
        Proposer(ledger, space, config.config, config.branching),
        n_trials=config.trials,
        n_workers=n_workers,
        watcher=Monitor(folder / "tensorboard", console),
        stop_when=config.stop_when,
        rungs=Rungs(stopping, folder / "rungs.json") if stopping else None,
        gpus_per_trial=config.resources.gpus_per_trial,
    )
    store = config.warmups or WarmupConfig(folder=str(folder / "warmups"))
    try:
        run_on_ray(
            searcher,
            folder,
            config.resources,
            data=data,
            model=model,
            warmups=store if config.shares_warmups else None,
            time_budget_s=config.time_budget_s,
        )
    finally:
        cut_short = searcher.close()
    if cut_short and config.time_budget_s is None:
        raise SweepInterruptedError(f"Interrupted; what there is: generalist-search front {folder}")


def _earlier(path: Path, config: SweepConfig) -> list[Observation]:
    """What a sweep's folder or a CSV has to say about this sweep's objectives."""
    objectives = config.config.evaluation.objectives
    if not path.is_dir():
        return list(read_observations(path, objectives))
    ledger = open_sweep(path).ledger
    same = ledger.objectives == objectives
    require(same, "a warm start with the same objectives", f"{ledger.objectives} in {path}")
    return ledger.observations(str(path))


def _check_that_it_can_start(
    config: SweepConfig, data: Dataset | None, model: ModelFactory | None
) -> None:
    """Find out before any work is done: data, model and device are there."""
    resources, device = config.resources, config.config.device
    names_gpu = device not in ("auto", "cpu")
    if resources.address is None and (resources.gpus_per_trial > 0 or names_gpu):
        resolve_device(device if names_gpu else "cuda")
        cure = "Ray hides GPUs from trials that ask for none."
        got = f"gpus_per_trial={resources.gpus_per_trial}, device={device}"
        require(resources.gpus_per_trial > 0, "gpus_per_trial > 0 with a GPU device", got, cure)
    on_cpu = from_dict({**to_dict(config.config), "device": "cpu"}, TrainConfig)
    GeneralistTrainer(on_cpu, data or load_dataset(config.config.data), model=model)


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
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": commit.stdout.strip() or "unknown",
        **{package: version(package) for package in packages},
    }
