"""What the drill disturbs: real sweeps that take seconds, each a process of the command line.

A sweep and all processes that it starts share a session, so that the drill finds, and ends, only
these.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.cli.main import main
from search.folders import SweepFolder, TrialFolder
from search.interruption import SIGNALS
from tests import ROOT

PATIENCE_S = 600.0
"""How long to wait for what must happen; on a busy machine Ray takes a minute just to start."""

ROOM = "64m"
"""The size of the file system of one sweep."""

PROGRAM = (sys.executable, "-m", "search")

COMMON = (
    *("--data", "digits", "--n-train", "240", "--n-validation", "100", "--width", "4"),
    *("--epochs", "6", "--batch-size", "32", "--set", "evaluation.every_epochs=1"),
    *("--deterministic", "--eta", "2", "--heartbeat-limit", "20"),
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A sweep, by its options and its number of trials."""

    name: str
    options: tuple[str, ...]
    trials: int

    def arguments(self, folder: Path, workers: int) -> list[str]:
        """The command that starts the sweep."""
        asked = ("--trials", str(self.trials), "--workers", str(workers), "--out", str(folder))
        return ["sweep", *COMMON, *self.options, *asked]


REQUESTS = (
    Request(name="mixing, tpe", options=("--space", "mixing"), trials=8),
    Request(name="lineages", options=("--space", "lineages"), trials=8),
)


def await_that(what: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Wait until a condition holds; returns whether it did in time."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return what()


def heed_signals() -> dict[int, Any]:
    """Heed signals here and in new processes, even those that a shell ignores for its jobs.

    Returns the handlers before.
    """
    numbers = [signal.Signals[name] for name in SIGNALS]
    return {number: signal.signal(number, signal.default_int_handler) for number in numbers}


class Warm:
    """A command in a process that is forked from one that has imported all it needs."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.drill.warm"])
        self._process = context.Process(target=run_warm, args=(arguments, log))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, if the process has ended."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once the process has ended.

        Raises:
            TimeoutExpired: it has not ended in time.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("warm command", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)


def run_warm(arguments: list[str], log: Path) -> None:
    """Run a command as a process of its own session, whose output goes to a file."""
    os.setsid()
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))


class Driver:
    """A running command, with all processes that it started."""

    def __init__(
        self, arguments: list[str], log: Path, shell: str = "", *, is_warm: bool = False
    ) -> None:
        """Start a command, in the environment that the line `shell` sets.

        One that is warm begins with all imports behind it, which saves seconds.
        """
        self.log = log
        self.began = time.monotonic()
        self.process: Warm | subprocess.Popen[bytes]
        if is_warm:
            self.process = Warm(arguments, log)
            return
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                ["bash", "-c", f'{shell}\nexec "$@"', "bash", *PROGRAM, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "RAY_worker_niceness": "0"},
            )

    @property
    def is_running(self) -> bool:
        """Whether the driver itself is running."""
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """All that it printed, on one line."""
        return " ".join(self.log.read_text(errors="replace").split())

    def signal(self, number: int) -> None:
        """Send a signal to the driver, if it is running."""
        if self.is_running:
            self.process.send_signal(number)

    def family(self) -> dict[int, str]:
        """The command line of every living process of its session, by process id."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                state, *ids = (place / "stat").read_text().rpartition(")")[2].split()[:4]
                title = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if state != "Z" and int(ids[2]) == self.process.pid:
                found[int(place.name)] = title
        return found

    def processes(self, *titles: str) -> list[int]:
        """Its processes whose command line contains one of `titles`."""
        family = self.family().items()
        return sorted(pid for pid, title in family if any(name in title for name in titles))

    def wait(self) -> int | None:
        """The exit code; None if the command hangs, after which it is ended."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.end()
            return None

    def end(self) -> dict[int, str]:
        """End all remaining processes; returns what they were."""
        left = self.family()
        for pid in left:
            kill(pid)
        self.process.wait()
        return left


def kill(pid: int) -> None:
    """Send SIGKILL to a process, if it is running."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Disk:
    """A small file system for one sweep if this process may mount one, else a plain folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True)
        self.is_own = _mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place))

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        return self.place / "out"

    def fill(self, left: int) -> None:
        """Leave `left` bytes of free space."""
        stats = os.statvfs(self.place)
        used = (stats.f_blocks - stats.f_bfree) * stats.f_frsize
        _mount("-o", f"remount,size={used + left}", str(self.place))

    def lock(self) -> None:
        """Make the folder read-only, even for root."""
        _run("chattr", "-R", "+i", str(self.folder))

    def set_read_only(self) -> None:
        """Remount the file system read-only; nobody may be writing to it."""
        _mount("-o", "remount,ro", str(self.place))

    def mend(self) -> None:
        """Make the folder writable again, with free space."""
        if self.is_own:
            _mount("-o", f"remount,rw,size={ROOM}", str(self.place))
        _run("chattr", "-R", "-i", str(self.folder))

    def close(self) -> None:
        """Unmount the file system."""
        self.mend()
        if self.is_own:
            _run("umount", "-l", str(self.place))


def can_lock(folder: Path) -> bool:
    """Whether files in a folder can be made immutable."""
    probe = folder / "immutable"
    probe.touch()
    able = _run("chattr", "+i", str(probe)) and _run("chattr", "-i", str(probe))
    probe.unlink()
    return able


def _mount(*options: str) -> bool:
    return _run("mount", *options)


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def progress(folder: Path) -> int:
    """The number of epochs that the trials of a sweep have reported."""
    trials = [TrialFolder(path) for path in SweepFolder(folder).trials.glob("*")]
    written = [trial.metrics.read_bytes() for trial in trials if trial.metrics.is_file()]
    return sum(content.count(b"\n") for content in written)


def ended_badly(driver: Driver, codes: tuple[int, ...], says: str = "") -> list[str]:
    """What is wrong with the end of a command: its exit code, or what it said or did not say."""
    code, said = driver.wait(), driver.said
    problems = [] if code in codes else [f"exit code {code}, not {codes}: {said[-600:]}"]
    if says not in said:
        problems.append(f"does not say {says!r}: {said[-600:]}")
    unforeseen = [word for word in ("Traceback", "with --debug", "Fatal Python") if word in said]
    return problems + [f"shows {word!r}: {said[-900:]}" for word in unforeseen]


def left_behind(drivers: list[Driver], patience_s: float = PATIENCE_S) -> list[str]:
    """Processes left by commands that have ended; those of Ray take a while to end."""
    ended = [d for d in drivers if await_that(lambda d=d: not d.family(), patience_s)]  # type: ignore[misc]
    return [f"{d.log} left processes: {d.end()}" for d in drivers if d not in ended]
