"""The fault drill: `python -m tests.drill [--faults 30] [--seed 0] [--hours 2] [--workers 2]`.

Random faults, each kind equally likely, strike real sweeps of digits. Each is followed by the
command that mends, and the outcome is compared, bit by bit, with that of an undisturbed sweep of
the same request. Prints a table, and exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from random import Random

from optuna.storages import InMemoryStorage

from generalist_core.config import TrainConfig
from generalist_core.config.presets import short
from generalist_core.randomness import derive_seed
from search.folders import SweepFolder
from search.study.folder import open_sweep
from search.study.ledger import Ledger
from search.study.samplers import build_samplers
from spaces import load_space
from tests.drill.alone import Alone
from tests.drill.checks import (
    Outcome,
    outcome,
    run_here,
    taken_back,
    unequal,
    unlawful,
    unlike_weights,
    unreadable,
    unreported,
)
from tests.drill.faults import DISTURBANCES, PLANTED, PLANTS, Fault
from tests.drill.single import SINGLES, Single
from tests.drill.sweeps import (
    REQUESTS,
    Disk,
    Driver,
    Request,
    await_that,
    can_lock,
    ended_badly,
    heed_signals,
    left_behind,
    progress,
)

FAULTS_PER_SWEEP = 9

EARLY = 0.25
"""The probability that a fault that may strike early does so."""

EPOCH_LIMIT_S = 25


@dataclass(kw_only=True)
class Tally:
    """The faults so far, and what was lost."""

    count: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, kinds: Sequence[str], problems: Sequence[str], where: str) -> None:
        """Count the faults of one sweep; if there are problems, all of them count as lost."""
        for kind in kinds:
            self.count[kind] = self.count.get(kind, 0) + 1
            self.lost[kind] = self.lost.get(kind, 0) + bool(problems)
        self.problems += [f"{where}, {', '.join(kinds)}: {problem}" for problem in problems]

    def table(self) -> str:
        """One row per kind of fault: tried, kept, lost."""
        counts = {kind: (n, n - self.lost[kind], self.lost[kind]) for kind, n in self.count.items()}
        rows = {
            **dict(sorted(counts.items())),
            f"all {len(counts)} kinds": [sum(n) for n in zip(*counts.values(), strict=True)],
        }
        lines = [f"{'fault':60} {'tried':>5} {'kept':>5} {'lost':>5}"]
        lines += [f"{kind:60} {n[0]:5} {n[1]:5} {n[2]:5}" for kind, n in rows.items()]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An undisturbed sweep: its folder, its outcome, and the epochs that it reported."""

    folder: Path
    outcome: Outcome
    n_epochs: int


class Drill:
    """Disturbs one sweep after another, each in a folder of its own."""

    def __init__(
        self,
        work: Path,
        *,
        seed: int,
        workers: int = 2,
        hours: float = inf,
        requests: Sequence[Request] = REQUESTS,
    ) -> None:
        self.work = work
        self.requests = requests
        self.rng = Random(seed)
        self.workers = workers
        self.tally = Tally()
        self.references: dict[str, Reference] = {}
        self.n_sweeps = self.n_drivers = 0
        self.began = time.monotonic()
        self.until = self.began + 3600 * hours

    @property
    def has_time(self) -> bool:
        """Whether another fault may strike."""
        return time.monotonic() < self.until

    def run(
        self, faults: Sequence[Fault], plants: Sequence[str], singles: Sequence[Single]
    ) -> None:
        """Strike with all faults; a fault that missed its sweep strikes the next one."""
        self.strike_alone(singles)
        if plants and self.has_time:
            self.plant(plants)
        waiting = list(faults)
        while waiting and self.has_time:
            now, waiting = waiting[:FAULTS_PER_SWEEP], waiting[FAULTS_PER_SWEEP:]
            request = self.requests[self.n_sweeps % len(self.requests)]
            waiting = [*self.disturb(request, now), *waiting]

    def strike_alone(self, singles: Sequence[Single]) -> None:
        """Strike a small sweep with each of these faults."""
        alone = Alone(self.work / "alone", self.begin, self.rng) if singles else None
        for single in itertools.takewhile(lambda _: self.has_time, singles):
            assert alone is not None
            self.n_sweeps += 1
            self.say(f"sweep {self.n_sweeps}: {single.kind}")
            self.conclude([single.kind], alone.strike(single))

    def reference(self, request: Request) -> Reference:
        """The undisturbed sweep, run once per request."""
        if request.name not in self.references:
            folder = self.work / f"undisturbed {request.name}"
            code = self.begin(request.arguments(folder, self.workers)).wait()
            problems = [f"exit code {code}"] if code != 0 else unlawful(folder, request.trials)
            assert not problems, f"undisturbed sweep {folder}: {problems}"
            self.references[request.name] = Reference(
                folder=folder, outcome=outcome(folder), n_epochs=progress(folder)
            )
        return self.references[request.name]

    def disturb(self, request: Request, faults: Sequence[Fault]) -> list[Fault]:
        """Run a sweep with faults, each followed by `resume`; returns the faults that missed it."""
        expected = self.reference(request)
        self.n_sweeps += 1
        self.say(f"sweep {self.n_sweeps}: {request.name}")
        disk = Disk(self.work / f"disk-{self.n_sweeps}")
        struck: list[Fault] = []
        problems: list[str] = []
        try:
            driver = self.begin(request.arguments(disk.folder, self.workers))
            drivers = [driver]
            reached = Outcome(ends={}, points={})
            for number, fault in enumerate(faults):
                fraction = (number + self.rng.random()) / (len(faults) + 1)
                if fault in struck:
                    continue
                if not self.is_time(driver, disk.folder, fault, fraction * expected.n_epochs):
                    break
                fault.strike(driver, disk, self.rng)
                struck.append(fault)
                self.say(f"  {fault.kind}, after {progress(disk.folder)} epochs")
                if fault.codes is None:
                    continue
                problems += self.aftermath(driver, disk, fault)
                struck += self.damage(disk.folder, faults[number + 1 :])
                before, reached = reached, outcome(disk.folder)
                problems += taken_back(before, reached)
                driver = self.begin(["resume", str(disk.folder)])
                drivers.append(driver)
            problems += self.at_the_end(driver, disk.folder, request, expected)
            problems += taken_back(reached, outcome(disk.folder))
            problems += left_behind(drivers)
            if problems:
                shutil.copytree(disk.folder, self.work / f"lost-{self.n_sweeps}", symlinks=True)
        finally:
            driver.end()
            disk.close()
        self.conclude([fault.kind for fault in struck], problems)
        return [fault for fault in faults if fault not in struck]

    def is_time(self, driver: Driver, folder: Path, fault: Fault, n_epochs: float) -> bool:
        """Wait until the fault is due; returns False if the sweep ends before."""
        is_resumed = SweepFolder(folder).request.is_file()
        if is_resumed and fault.may_strike_early and self.rng.random() < EARLY:
            time.sleep(self.rng.uniform(0, 10))
            return driver.is_running
        due = max(n_epochs, progress(folder) + 1)
        await_that(lambda: progress(folder) >= due or not driver.is_running)
        time.sleep(self.rng.uniform(0, 0.3))
        return driver.is_running

    def aftermath(self, driver: Driver, disk: Disk, fault: Fault) -> list[str]:
        """What is wrong after a fault; then the folder is made ready to be resumed."""
        assert fault.codes is not None
        says = fault.says if driver.wait() else "Hypervolume"  # it may have ended before the fault
        problems = ended_badly(driver, fault.codes, says)
        self.damage(disk.folder, [fault])
        problems += unreadable(disk.folder)
        if fault.is_refused:
            code, printed = run_here("resume", str(disk.folder))
            if code not in (1, 2) or "writ" not in printed:
                problems.append(f"resume exits with {code}: {printed}")
        disk.mend()
        return [f"{fault.kind}: {problem}" for problem in problems]

    def damage(self, folder: Path, faults: Sequence[Fault]) -> list[Fault]:
        """Apply the damages at the start of `faults` to a folder; returns those applied."""
        damaging = list(itertools.takewhile(lambda fault: fault.damage is not None, faults))
        for fault in damaging:
            assert fault.damage is not None
            fault.damage(folder, self.rng)
            self.say(f"    {fault.kind}: damage done")
        return damaging

    def at_the_end(
        self, driver: Driver, folder: Path, request: Request, expected: Reference
    ) -> list[str]:
        """What is wrong with the disturbed sweep at its end."""
        problems = ended_badly(driver, (0,), "Hypervolume")
        problems += unlawful(folder, request.trials)
        problems += unequal(outcome(folder), expected.outcome)
        problems += unreported(folder)
        return problems + unlike_weights(folder, expected.folder)

    def plant(self, plants: Sequence[str]) -> None:
        """Run a sweep in which trials fail; then resume it with one more trial."""
        place = self.work / "plants.py"
        place.write_text(PLANTS.format(choices=["nothing", *plants]))
        space, folder, n_trials = f"{place}:space", self.work / "planted", 8
        seed = seed_that_plants(space, plants, n_trials)
        self.say(f"sweep with planted {', '.join(plants)}")
        options = ("--space", space, "--sampler", "random", "--search-seed", str(seed))
        limits = ("--epoch-limit", str(EPOCH_LIMIT_S), "--max-retries", "2")
        request = Request(name="planted", options=(*options, *limits), trials=n_trials)
        driver = self.begin(request.arguments(folder, self.workers))
        problems = ended_badly(driver, (0,), "Hypervolume")
        problems += unlawful(folder, n_trials) + failed_otherwise(folder) + unreported(folder)
        reached = outcome(folder)
        driver = self.begin(["resume", str(folder), "--trials", str(n_trials + 1)])
        problems += ended_badly(driver, (0,), "Hypervolume")
        problems += unlawful(folder, n_trials + 1) + failed_otherwise(folder) + unreported(folder)
        problems += taken_back(reached, outcome(folder))
        self.conclude([f"planted: {PLANTED[plant]}" for plant in plants], problems)

    def conclude(self, kinds: Sequence[str], problems: Sequence[str]) -> None:
        """Count the faults and report the problems."""
        self.tally.add(kinds, problems, f"sweep {self.n_sweeps}")
        for problem in problems:
            self.say(f"  LOST: {problem[:1000]}")

    def begin(self, arguments: list[str], shell: str = "", *, is_warm: bool = False) -> Driver:
        """Start a command that prints to a log of its own."""
        self.n_drivers += 1
        return Driver(arguments, self.work / f"driver-{self.n_drivers}.log", shell, is_warm=is_warm)

    def say(self, text: str) -> None:
        """Report the progress."""
        sys.stderr.write(f"{time.monotonic() - self.began:6.0f} s  {text}\n")


def failed_otherwise(folder: Path) -> list[str]:
    """The trials that did not fail as planted, or failed although nothing was planted."""
    ledger = open_sweep(folder).ledger
    found = {name: failure.kind for name, failure in ledger.results.failures().items()}
    planted = {p.trial: PLANTED.get(p.params["planted"]) for p in ledger.results.proposals()}
    expected = {name: kind for name, kind in planted.items() if kind}
    return [] if found == expected else [f"failures {found}, but planted were {expected}"]


def seed_that_plants(space: str, plants: Sequence[str], n_trials: int) -> int:
    """The first seed of a random search in whose first trials every plant occurs."""
    base: TrainConfig = short(epochs=6)
    for seed in range(10_000):
        sampler_of = build_samplers(
            "random", seed=derive_seed(seed, "sampler") % 2**32, n_startup=1
        )
        ledger = Ledger(InMemoryStorage(), base.evaluation.objective_names, sampler_of=sampler_of)
        asked = [ledger.ask(load_space(space), base) for _ in range(n_trials)]
        if set(plants) <= {proposal.params["planted"] for proposal in asked[2:]}:
            return seed
    raise AssertionError("No seed plants all of them.")


def plan(n_faults: int, rng: Random, work: Path) -> tuple[list[Fault], list[str], list[Single]]:
    """`n_faults` random faults of all kinds that are possible here: each kind is equally likely.

    No kind comes a second time before all have come.
    """
    with_disk = Disk(work / "probe")
    able = {"": True, "mount": with_disk.is_own, "chattr": can_lock(with_disk.place)}
    with_disk.close()
    possible = [fault for fault in DISTURBANCES if able[fault.needs]]
    for fault in set(DISTURBANCES) - set(possible):
        sys.stderr.write(f"left out, because {fault.needs} is not allowed: {fault.kind}\n")
    kinds: list[Fault | str | Single] = [*possible, *PLANTED, *SINGLES]
    chosen: list[Fault | str | Single] = []
    while len(chosen) < n_faults:
        chosen += rng.sample(kinds, min(len(kinds), n_faults - len(chosen)))
    faults = [fault for fault in chosen if isinstance(fault, Fault)]
    plants = sorted({fault for fault in chosen if isinstance(fault, str)})
    return in_pairs(faults), plants, [fault for fault in chosen if isinstance(fault, Single)]


def in_pairs(faults: Sequence[Fault]) -> list[Fault]:
    """The same faults, with damages after faults that end a sweep, so that both need one resume."""
    damages = [fault for fault in faults if fault.damage is not None]
    ordered = []
    for fault in faults:
        if fault.damage is None:
            ordered += [fault] if fault.codes is None or not damages else [fault, damages.pop()]
    return [*ordered, *damages]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill; returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--faults", type=int, default=30, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--hours", type=float, default=inf, metavar="H")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    options = parser.parse_args(arguments)
    heed_signals()
    work = Path(tempfile.mkdtemp(prefix="drill-"))
    drill = Drill(work, seed=options.seed, workers=options.workers, hours=options.hours)
    drill.run(*plan(options.faults, drill.rng, work))
    sys.stdout.write(f"{drill.tally.table()}\n")
    if drill.tally.problems:
        sys.stdout.write("\n".join([*drill.tally.problems, f"The folders are kept in {work}", ""]))
        return 1
    shutil.rmtree(work)
    return 0
