"""How large a sweep may become: time, memory and bytes of what the driver and the commands do.

python -m benchmarks.scale [--quick]

Nothing is trained. A study of 10,000 observations is written by the ledger, as a sweep does it; its
folder has a store of 5,000 warm-ups. 1,000 simulated trials are watched by TensorBoard. A front has
1,000 points. Every row is measured in a process of its own, with one thread: its seconds are those
of the processor, which other processes do not change, and its peak of memory includes the imported
libraries. The last column says whether a goal is reached. `--quick` shows that the command works,
in a hundredth of the size.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from optuna.storages import InMemoryStorage

from benchmarks.simulated_loop import run_here
from benchmarks.simulator import SimulatedTrainer, World
from generalist_core.config import TrainConfig
from generalist_core.config.presets import short
from generalist_core.training.evaluator import OperatingPoint
from search.config import SweepConfig, WarmupConfig
from search.files import disk_bytes, save_sealed
from search.folders import SweepFolder
from search.front.redraws import kept_shares
from search.monitoring.tensorboard import Monitor
from search.report.console_table import console_table
from search.report.write import front_document, write_files
from search.running.trial import Training, with_release_ratio
from search.running.warmups import WarmupStore, open_store
from search.scheduling.callbacks import Callback
from search.scheduling.proposer import SamplingProposer
from search.scheduling.searcher import Searcher
from search.study.folder import (
    custom_parts,
    open_ledger,
    open_sweep,
    rewrite_request,
    write_request,
)
from search.study.ledger import Ledger
from search.study.records import Proposal
from spaces import SPACES
from spaces.parameters import parameters_of_space

RATIOS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

COST = {"forward_images": 1e6, "reused_forward_images": 0.0, "seconds": 60.0}

SPACE = "full"

N_TIMED = 20
"""The calls of which a median is given."""

Release = Callable[[Proposal], list[OperatingPoint]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many observations, trials in TensorBoard, stored warm-ups and points on a front."""

    observations: int = 10_000
    watched: int = 1_000
    warmups: int = 5_000
    front: int = 1_000


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured: seconds, the peak of memory, and other numbers by their names."""

    seconds: float
    peak_mb: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)


GOALS = {
    "open": {"seconds": 5.0},
    "suggest": {"seconds": 0.05},
    "report": {"seconds": 60.0, "page MB": 20.0},
    "report of the large front": {"seconds": 60.0, "page MB": 20.0},
}
"""For some rows, the most that a number may be."""


def measured(work: Callable[[], Figures]) -> Figures:
    """What `work` measures in a process of its own, and the peak of memory there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_with_peak, work).result()


def _with_peak(work: Callable[[], Figures]) -> Figures:
    torch.set_num_threads(1)
    done = work()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Figures(seconds=done.seconds, peak_mb=peak_kib * 1024 / 1e6, numbers=done.numbers)


def seconds_of(work: Callable[[], object]) -> float:
    """The seconds of the processor that one call takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def build_study(folder: Path, n_observations: int, *, on_front: int = 0) -> Figures:
    """A sweep's folder with a study of at least so many observations, and averages of its front."""
    files, request = SweepFolder(folder), SweepConfig(base=short(), space=SPACE, sampler="random")
    custom = custom_parts(None, None)
    write_request(folder, request, "scale", custom)
    ledger, n_told = open_ledger(folder, request, "scale", is_new=True), 0
    release = partial(on_a_line, n=on_front) if on_front else simulated
    began = time.process_time()
    while n_told < n_observations:
        proposal = ledger.ask(SPACES[SPACE], request.base)
        points = release(proposal)
        ledger.tell_released(proposal.trial, points, COST)
        n_told += len(points)
    seconds = time.process_time() - began
    rewrite_request(folder, replace(request, sampler="tpe"), ledger.study, custom, {})
    weights = {name: {"weight": torch.zeros(1)} for name in ("natural", "robust")}
    for trial in {point.trial for point in ledger.results.front().points}:
        files.trial(trial).root.mkdir(parents=True)
        save_sealed(files.trial(trial).averages, weights, trial)
    size = files.journal.stat().st_size / 1e6
    return Figures(seconds=seconds, numbers={"trials": ledger.results.n_asked, "MB": size})


def simulated(proposal: Proposal) -> list[OperatingPoint]:
    """The points of a simulated training."""
    trainer = SimulatedTrainer(proposal.config, World())
    trainer.epoch = proposal.config.epochs
    return trainer.release(list(dict.fromkeys((proposal.mixing_ratio, *RATIOS))))


def on_a_line(proposal: Proposal, *, n: int) -> list[OperatingPoint]:
    """Points of which none dominates another, of `n` in all."""
    ratios = list(dict.fromkeys((proposal.mixing_ratio, *RATIOS)))
    first = int(proposal.trial) * (len(RATIOS) + 1)
    places = [(first + place) / (n + len(ratios)) for place in range(len(ratios))]
    return [
        OperatingPoint(
            mixing_ratio=ratio,
            accuracies={"natural": 0.4 + 0.5 * place, "robust": 0.6 - 0.5 * place},
            n_images=10_000,
            epoch=proposal.config.epochs,
        )
        for ratio, place in zip(ratios, places, strict=True)
    ]


def store_warmups(folder: Path, n: int) -> Figures:
    """Fill a store; then the seconds that a trial needs there, until it may train."""
    config = WarmupConfig(folder=str(folder))
    state = {"weight": torch.zeros(250)}
    for number in range(n):
        key = f"{number:064x}"
        (folder / key).mkdir(parents=True)
        save_sealed(folder / key / "1.pt", state, f"{key}/1/")
    keys = [f"{number:064x}" for number in range(n, n + 81)]
    keys[1] = f"{n - 1:064x}"

    def use(store: WarmupStore) -> None:
        assert store.find(keys, 80) == 1
        assert store.load(keys[1], 1) is not None
        claim = store.claim(keys[80])
        assert claim is not None
        store.publish(keys[80], 80, state, {})
        claim.release()

    opened = seconds_of(lambda: open_store(config, "a trial"))
    store = open_store(config, "another trial")
    found = statistics.median(seconds_of(lambda: store.find(keys, 80)) for _ in range(N_TIMED))
    seconds = seconds_of(lambda: use(store))
    return Figures(seconds=seconds, numbers={"open ms": 1e3 * opened, "look-up ms": 1e3 * found})


def open_study(folder: Path) -> Figures:
    """Open a sweep, as every command does."""
    return Figures(seconds=seconds_of(lambda: open_sweep(folder)))


def suggest_and_tell(folder: Path) -> Figures:
    """The median of suggestions on a full study; how long the first one and telling take."""
    sweep, asking, telling = open_sweep(folder), [], []
    base = sweep.config.base
    proposer = SamplingProposer(sweep.ledger, SPACES[SPACE], base)

    def trial() -> None:
        began = time.process_time()
        proposal = proposer.propose()
        asking.append(time.process_time() - began)
        points = simulated(proposal)
        began = time.process_time()
        sweep.ledger.tell_released(proposal.trial, points, COST)
        telling.append(time.process_time() - began)

    for _ in range(N_TIMED + 1):
        trial()
    numbers = {"first s": asking[0], "tell ms": 1e3 * statistics.median(telling[1:])}
    return Figures(seconds=statistics.median(asking[1:]), numbers=numbers)


def show_front(folder: Path) -> Figures:
    """What `front` and `front --json` print."""
    sweep = open_sweep(folder)

    def show() -> None:
        kept = kept_shares(sweep.front, sweep.results.points())
        console_table(folder, sweep.front, kept)
        front_document(folder, sweep.results)
        disk_bytes(folder)

    return Figures(seconds=seconds_of(show), numbers={"points": len(sweep.front.points)})


def report(folder: Path) -> Figures:
    """Write every file of the report."""
    results = open_sweep(folder).results
    seconds = seconds_of(lambda: write_files(folder, results))
    page = SweepFolder(folder).report.stat().st_size / 1e6
    return Figures(seconds=seconds, numbers={"page MB": page})


class Timed(Callback):
    """Counts the seconds of all calls of a callback."""

    def __init__(self, callback: Callback) -> None:
        self.seconds = 0.0
        for name in (name for name in vars(Callback) if not name.startswith("_")):
            setattr(self, name, partial(self._call, getattr(callback, name)))

    def _call(self, method: Callable[..., None], *arguments: object) -> None:
        self.seconds += seconds_of(lambda: method(*arguments))


def watch(folder: Path, n_trials: int) -> Figures:
    """Simulated trials in TensorBoard, and only the time that this takes."""
    base = short()
    ledger = Ledger(InMemoryStorage(), base.evaluation.objective_names)
    monitor = Monitor(
        folder,
        parameters_of_space(SPACES[SPACE], base),
        base.evaluation.objective_names,
        study="scale",
    )
    timed = Timed(monitor)
    searcher = Searcher(
        SamplingProposer(ledger, SPACES[SPACE], base), n_trials=n_trials, callback=timed
    )
    run_here(searcher, begin)
    searcher.close()
    files = [path for path in folder.rglob("*") if path.is_file()]
    numbers = {"files": len(files), "MB": disk_bytes(folder) / 1e6}
    return Figures(seconds=timed.seconds, numbers=numbers)


def begin(proposal: Proposal) -> Training:
    """A simulated training."""
    config: TrainConfig = with_release_ratio(proposal.config, proposal.mixing_ratio)
    return Training(SimulatedTrainer(config, World()))


def measurements(folder: Path, sizes: Sizes) -> Iterator[tuple[str, Figures]]:
    """Every row of the table: its name, and what was measured."""
    study, large = folder / "study", folder / "large-front"
    study.mkdir()
    large.mkdir()
    store = SweepFolder(study).warmups
    for name, work in {
        "write the study": partial(build_study, study, sizes.observations),
        "fill and use the store": partial(store_warmups, store, sizes.warmups),
        "open": partial(open_study, study),
        "front": partial(show_front, study),
        "report": partial(report, study),
        "suggest": partial(suggest_and_tell, study),
        "write the large front": partial(build_study, large, sizes.front, on_front=sizes.front),
        "the large front": partial(show_front, large),
        "report of the large front": partial(report, large),
        "TensorBoard": partial(watch, folder / "tensorboard", sizes.watched),
    }.items():
        yield name, measured(work)


def row(name: str, figures: Figures) -> str:
    """A line of the table."""
    measured_here = {"seconds": figures.seconds, **figures.numbers}
    goals = GOALS.get(name, {})
    missed = [f"{what} <= {most:g}" for what, most in goals.items() if measured_here[what] > most]
    numbers = "  ".join(f"{what} {number:.4g}" for what, number in figures.numbers.items())
    end = f"  MISSED: {', '.join(missed)}" if missed else "  as aimed for" if goals else ""
    return f"{name:<26} {figures.seconds:9.3f} s {figures.peak_mb:7.0f} MB  {numbers}{end}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    sizes = Sizes()
    if parser.parse_args().quick:
        sizes = Sizes(observations=100, watched=10, warmups=50, front=10)
    print(sizes)
    with tempfile.TemporaryDirectory() as folder:
        for name, figures in measurements(Path(folder), sizes):
            print(row(name, figures), flush=True)


if __name__ == "__main__":
    main()
