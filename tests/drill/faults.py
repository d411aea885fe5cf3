"""The faults of the drill: what strikes a sweep that runs, or is found when it goes on."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from search.folders import SweepFolder
from search.running.trial import CHECKPOINT, METRICS
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
    """What strikes a running sweep, and how it must end: with which code, saying what.

    `codes` is None where it must go on by itself. `damage` is then done to its folder. With
    `is_refused` a `resume` must fail before the damage is mended.
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
        """Whether it may strike while the sweep starts."""
        return self.codes == KILLED and self.damage is None


def kill_driver(driver: Driver, _: Disk, __: Random) -> None:
    driver.signal(signal.SIGKILL)


def kill_group(driver: Driver, _: Disk, __: Random) -> None:
    """The driver with Ray's own processes; workers have groups of their own."""
    os.killpg(driver.process.pid, signal.SIGKILL)


def kill_worker(driver: Driver, _: Disk, rng: Random) -> None:
    if await_that(lambda: bool(driver.processes(*WORKER)) or not driver.is_running):
        workers = driver.processes(*WORKER)
        kill(rng.choice(workers)) if workers else None


def kill_node(driver: Driver, _: Disk, __: Random) -> None:
    """Workers that live may well train to the end without it; a new one cannot begin."""
    for pid in driver.processes(*NODE):
        kill(pid)


def signals(*numbers: int) -> Strike:
    """Send these, with a random while between."""

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
    """Cut the driver off in the middle of a record: no file may grow beyond that."""
    size = SweepFolder(disk.folder).journal.stat().st_size
    limit = size + rng.randrange(1, 200)
    if driver.is_running:
        resource.prlimit(driver.process.pid, resource.RLIMIT_FSIZE, (limit, limit))


def half_a_record(folder: Path, rng: Random) -> None:
    _append_half_a_line(SweepFolder(folder).journal, rng)


def half_an_epoch(folder: Path, rng: Random) -> None:
    """Half a line of metrics, of a trial under way if there is one."""
    with_metrics = [path.parent for path in folder.glob(f"trials/*/{METRICS}")]
    under_way = [place for place in with_metrics if (place / CHECKPOINT).is_file()]
    _append_half_a_line(rng.choice(sorted(under_way or with_metrics)) / METRICS, rng)


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
    """What is left of a write between its temporary file and the rename."""
    trials = sorted(place for place in folder.glob("trials/*") if place.is_dir())
    (folder / ".front.json.a1b2c3").write_bytes(b'{"objectives": [')
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / ".0000-0.5.pt.a1b2c3").write_bytes(rng.randbytes(100))
    if trials:
        (rng.choice(trials) / f".{CHECKPOINT}.a1b2c3").write_bytes(rng.randbytes(100))


def damaged_checkpoint(folder: Path, rng: Random) -> None:
    """A bit flipped or an end cut off, in a checkpoint if there is one, and in a warm-up."""
    for pattern in (f"trials/*/{CHECKPOINT}", "warmups/*/*.pt"):
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
"""What is planted in a trial, and the kind of failure that it must become."""

PLANTS = '''
"""Trials that fail, each in its own way, for the fault drill."""

import time

from torch import nn

from generalist_core.codec import replace_at
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
    """Flattens images for a linear layer, and after a while does something else."""

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
