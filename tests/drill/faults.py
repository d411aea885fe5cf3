"""The faults of the drill: what strikes a running sweep, or is found when it is resumed."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from search.folders import SweepFolder, TrialFolder
from tests.drill.sweeps import Disk, Driver, await_that, kill

WORKER = ("Trainable",)
NODE = ("/raylet/raylet ",)
KILLED = (-signal.SIGKILL,)
UNDONE = (1,)
GO_ON = "generalist-search resume"

Strike = Callable[[Driver, Disk, Random], None]
Damage = Callable[[Path, Random], None]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What strikes a running sweep, and how the sweep must end: its exit code and its message.

    `codes` is None if the sweep must continue by itself. `damage` is done to the folder after the
    sweep has ended. With `is_refused`, `resume` must fail until the damage is mended.
    """

    kind: str
    strike: Strike
    codes: tuple[int, ...] | None = KILLED
    says: str = ""
    damage: Damage | None = None
    is_refused: bool = False
    needs: str = ""

    @property
    def may_strike_early(self) -> bool:
        """Whether the fault may strike while the sweep starts."""
        return self.codes == KILLED and self.damage is None


def kill_driver(driver: Driver, _: Disk, __: Random) -> None:
    driver.signal(signal.SIGKILL)


def kill_group(driver: Driver, _: Disk, __: Random) -> None:
    """Kill the driver with Ray's own processes; workers have groups of their own."""
    os.killpg(driver.process.pid, signal.SIGKILL)


def kill_worker(driver: Driver, _: Disk, rng: Random) -> None:
    if await_that(lambda: bool(driver.processes(*WORKER)) or not driver.is_running):
        workers = driver.processes(*WORKER)
        kill(rng.choice(workers)) if workers else None


def to_processes(*titles: str, number: int) -> Strike:
    """Send a signal to one of the processes of the sweep with such a title, if there is one."""

    def strike(driver: Driver, _: Disk, rng: Random) -> None:
        if found := driver.processes(*titles):
            os.kill(rng.choice(found), number)

    return strike


def to_group(number: int) -> Strike:
    """Send a signal to the driver with Ray's own processes in its group."""
    return lambda driver, _, __: os.killpg(driver.process.pid, number)


def kill_node(driver: Driver, _: Disk, __: Random) -> None:
    """Kill the raylet: running workers may train to the end without it, but none can start."""
    for pid in driver.processes(*NODE):
        kill(pid)


def signals(*numbers: int) -> Strike:
    """Send these signals, with a random pause after each."""

    def strike(driver: Driver, _: Disk, rng: Random) -> None:
        for number in numbers:
            driver.signal(number)
            time.sleep(rng.uniform(0, 1.5))

    return strike


def fill(_: Driver, disk: Disk, rng: Random) -> None:
    disk.fill(rng.randrange(16 * 1024))


def make_immutable(_: Driver, disk: Disk, __: Random) -> None:
    disk.lock()


def kill_and_set_read_only(driver: Driver, disk: Disk, _: Random) -> None:
    driver.signal(signal.SIGKILL)
    await_that(lambda: not driver.is_running and not driver.family())
    disk.set_read_only()


def tear_next_record(driver: Driver, disk: Disk, rng: Random) -> None:
    """Limit the size of files, so that the driver is cut off in the middle of a record."""
    size = SweepFolder(disk.folder).journal.stat().st_size
    limit = size + rng.randrange(1, 200)
    if driver.is_running:
        resource.prlimit(driver.process.pid, resource.RLIMIT_FSIZE, (limit, limit))


def half_a_record(folder: Path, rng: Random) -> None:
    _append_half_a_line(SweepFolder(folder).journal, rng)


def half_an_epoch(folder: Path, rng: Random) -> None:
    """Append an incomplete line of metrics to a trial, a running one if there is one."""
    trials = [TrialFolder(path) for path in sorted(SweepFolder(folder).trials.glob("*"))]
    with_metrics = [trial for trial in trials if trial.metrics.is_file()]
    under_way = [trial for trial in with_metrics if trial.checkpoint.is_file()]
    _append_half_a_line(rng.choice(under_way or with_metrics).metrics, rng)


def _append_half_a_line(path: Path, rng: Random) -> None:
    line = rng.choice(path.read_bytes().splitlines() or [b"{}"])
    with path.open("ab") as file:
        file.write(line[: rng.randrange(1, len(line))])


def stale_lock(folder: Path, _: Random) -> None:
    journal = SweepFolder(folder).journal
    lock = journal.with_name(f"{journal.name}.lock")
    if not lock.is_symlink():
        lock.symlink_to(journal)


def parts_of_files(folder: Path, rng: Random) -> None:
    """Leave what a write leaves that is cut off before the rename."""
    trials = sorted(place for place in folder.glob("trials/*") if place.is_dir())
    (folder / ".front.json.a1b2c3d4e5f60718").write_bytes(b'{"objectives": [')
    if trials:
        (rng.choice(trials) / ".checkpoint.pt.a1b2c3d4e5f60718").write_bytes(rng.randbytes(100))


def damaged_checkpoint(folder: Path, rng: Random) -> None:
    """Flip a bit of a checkpoint and of a warm-up, or cut off the end, if there are any."""
    for pattern in ("trials/*/checkpoint.pt", "warmups/*/*.pt"):
        found = sorted(folder.glob(pattern))
        if found:
            _spoil(rng.choice(found), rng)


def _spoil(path: Path, rng: Random) -> None:
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        content[place] ^= 1 << rng.randrange(8)
    else:
        del content[place:]
    path.write_bytes(content)


ROOM = "have space and be writable"

DISTURBANCES = (
    Fault(kind="SIGKILL of the driver", strike=kill_driver),
    Fault(kind="SIGKILL of the driver's process group", strike=kill_group),
    Fault(kind="SIGKILL of a worker", strike=kill_worker, codes=None),
    Fault(kind="SIGKILL of raylet", strike=kill_node, codes=(0, *UNDONE)),
    Fault(kind="SIGINT", strike=signals(signal.SIGINT), codes=UNDONE, says=GO_ON),
    Fault(kind="SIGTERM", strike=signals(signal.SIGTERM), codes=UNDONE, says=GO_ON),
    Fault(kind="SIGINT twice", strike=signals(signal.SIGINT, signal.SIGINT), codes=UNDONE),
    Fault(kind="SIGTERM twice", strike=signals(signal.SIGTERM, signal.SIGTERM), codes=UNDONE),
    *(
        Fault(
            kind=f"{name} to {to}",
            strike=to_processes(*titles, number=signal.Signals[name]),
            codes=codes,
        )
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
        for to, titles, codes in (("a worker", WORKER, None), ("raylet", NODE, (0, *UNDONE)))
    ),
    *(
        Fault(
            kind=f"{name} to the driver's process group",
            strike=to_group(signal.Signals[name]),
            codes=UNDONE,
            says=GO_ON,
        )
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    ),
    *(
        Fault(kind=name, strike=signals(signal.Signals[name]), codes=UNDONE, says=GO_ON)
        for name in ("SIGHUP", "SIGQUIT")
    ),
    Fault(kind="frozen worker", strike=to_processes(*WORKER, number=signal.SIGSTOP), codes=None),
    Fault(kind="full disk", strike=fill, codes=UNDONE, says=ROOM, needs="mount"),
    Fault(kind="unwritable folder", strike=make_immutable, codes=UNDONE, says=ROOM, needs="chattr"),
    Fault(
        kind="read-only disk at resume",
        strike=kill_and_set_read_only,
        is_refused=True,
        needs="mount",
    ),
    Fault(kind="write cut off in a record", strike=tear_next_record, codes=UNDONE, says=ROOM),
    Fault(kind="torn study.journal", strike=kill_driver, damage=half_a_record),
    Fault(kind="stale lock of study.journal", strike=kill_driver, damage=stale_lock),
    Fault(kind="torn metrics.jsonl", strike=kill_driver, damage=half_an_epoch),
    Fault(kind="parts of files", strike=kill_driver, damage=parts_of_files),
    Fault(kind="damaged checkpoint and warm-up", strike=kill_driver, damage=damaged_checkpoint),
)

PLANTED = {
    "diverging": "diverged",
    "raising": "error",
    "hanging": "hang",
    "out_of_memory": "out-of-memory",
}
"""What is planted in a trial, and the kind of failure that must result."""

PLANTS = '''
"""Trials that fail in different ways, for the fault drill."""

import time

from torch import nn

from generalist_core.config.codec import replace_at
from spaces import mixing

CHOICES = {choices!r}


def space(trial, base):
    config = mixing(trial, base)
    planted = trial.suggest_categorical("planted", CHOICES)
    if planted == "diverging":
        return replace_at(config, "experts.robust.optimizer.lr", 1e38)
    if planted == "nothing":
        return config
    return replace_at(config, "model", {{"name": f"{{__file__}}:{{planted}}"}})


class Planted(nn.Module):
    """A linear layer that calls `event` from its 101st call on."""

    def __init__(self, shape, n_classes, event):
        super().__init__()
        self.linear = nn.Linear(shape[0] * shape[1] * shape[2], n_classes)
        self.event = event
        self.n_calls = 0

    def forward(self, x):
        self.n_calls += 1
        if self.n_calls > 100:
            self.event()
        return self.linear(x.flatten(1))


def raising(n_classes, shape):
    def event():
        raise ValueError("planted")

    return Planted(shape, n_classes, event)


def hanging(n_classes, shape):
    return Planted(shape, n_classes, lambda: time.sleep(3600))


def out_of_memory(n_classes, shape):
    def event():
        raise MemoryError("planted")

    return Planted(shape, n_classes, event)
'''
