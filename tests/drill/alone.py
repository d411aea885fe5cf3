"""Strikes small local sweeps, each with one fault, and checks what follows."""

from __future__ import annotations

import hashlib
import shutil
import signal
from pathlib import Path
from random import Random

from search.files import read_sealed_json
from search.folders import SweepFolder
from tests.drill.checks import (
    left_over,
    outcome,
    run_here,
    unequal,
    unlawful,
    unlike_weights,
    unreadable,
)
from tests.drill.damages import MENDED, REFUSED
from tests.drill.single import Begin, Scene, Single
from tests.drill.sweeps import await_that, ended_badly, left_behind

N_TRIALS = 4

LOST = "must hold the weights of trial"
"""What a command says of weights that are lost; the user then puts back a copy."""

OPTIONS = (
    *("--local", "--data", "digits", "--n-train", "240", "--n-validation", "100"),
    *("--epochs", "5", "--batch-size", "32", "--set", "evaluation.every_epochs=1"),
    *("--eta", "2", "--trials", str(N_TRIALS), "--repeats", "1"),
)

MENDS = {"resume": ("--local",), "verify": ("--attacks", "fgsm", "--n-images", "20")}
"""The options of the commands that mend."""

OWN = {
    "own_model.py": """
from torch import nn

def linear(n_classes, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], n_classes))
""",
    "own_space.py": """
from spaces import mixing

def space(trial, base):
    return mixing(trial, base)
""",
}
"""The user's files."""

CHANGES = ("log.txt", ".lease", ".report-lease")
"""Files that a refused command may change."""


class Alone:
    """Two sweeps, one finished and one killed, and what follows when a copy is struck."""

    def __init__(self, work: Path, begin: Begin, rng: Random) -> None:
        """Make the two sweeps in `work`."""
        work.mkdir()
        self.work, self.begin, self.rng = work, begin, rng
        self.n_struck = 0
        for name, text in OWN.items():
            (work / name).write_text(text)
        self.finished, self.killed = work / "finished", work / "killed"
        for arguments in (self.sweep(self.finished), mending("verify", self.finished)):
            driver = begin(arguments)
            assert driver.wait() == 0, driver.said
        driver = begin(self.sweep(self.killed))
        checkpoint = SweepFolder(self.killed).trial("0002").checkpoint
        assert await_that(lambda: checkpoint.exists() or not driver.is_running)
        driver.signal(signal.SIGKILL)
        driver.wait()
        assert checkpoint.exists(), driver.said
        self.expected = outcome(self.finished)

    def sweep(self, folder: Path) -> list[str]:
        """The command that begins the sweep in a folder."""
        own = (
            "--model",
            f"{self.work}/own_model.py:linear",
            "--space",
            f"{self.work}/own_space.py:space",
        )
        return ["sweep", *OPTIONS, *own, "--out", str(folder)]

    def strike(self, single: Single) -> list[str]:
        """Strike a sweep; returns what is wrong then, and after it was mended."""
        self.n_struck += 1
        scene = Scene(
            folder=self.work / f"sweep-{self.n_struck}",
            finished=self.finished,
            killed=self.killed,
            rng=self.rng,
            begin=self.begin,
        )
        try:
            if single.begins_with == "new":
                problems = self._while_running(scene, single)
            else:
                problems = self._at_rest(scene, single)
            problems += self._after(scene, single)
            problems += left_behind(scene.drivers, 20)
        finally:
            for driver in scene.drivers:
                driver.end()
            scene.mend()
        if not problems:
            shutil.rmtree(scene.folder)
        return problems

    def _while_running(self, scene: Scene, single: Single) -> list[str]:
        scene.start(self.sweep(scene.folder), single.shell)
        single.strike(scene)
        problems = []
        for number, driver in enumerate(scene.drivers):
            problems += ended_badly(driver, single.codes if not number else (0, 1, 2))
        return problems

    def _at_rest(self, scene: Scene, single: Single) -> list[str]:
        shutil.copytree(
            self.finished if single.begins_with == "finished" else self.killed, scene.folder
        )
        single.strike(scene)
        before = digests(scene.folder)
        problems = misread(scene.folder)
        if digests(scene.folder) != before:
            problems.append(f"reading changes {differing(before, digests(scene.folder))}")
        driver = scene.start(
            mending(single.mends[0], scene.folder), single.shell, is_warm=not single.shell
        )
        code = driver.wait()
        follows = MENDED if code == 0 else REFUSED
        problems += ended_badly(driver, (0, 1, 2, -signal.SIGXCPU, -signal.SIGKILL))
        if single.may not in (follows, "either"):
            problems.append(f"is {follows}: {driver.said[-500:]}")
        if follows == REFUSED and not any(name in driver.said for name in scene.damaged or [""]):
            problems.append(f"does not name {scene.damaged}: {driver.said[-500:]}")
        if code == 2 and (changed := differing(before, digests(scene.folder))):
            problems.append(f"is refused, but changes {changed}: {driver.said[-300:]}")
        if follows == MENDED and LOST not in driver.said:
            scene.undo.clear()
        return problems

    def _after(self, scene: Scene, single: Single) -> list[str]:
        """Mend the sweep, and compare it with the finished one."""
        scene.mend()
        is_resumed = single.begins_with != "new" and single.mends == ("resume",)
        if not is_resumed or scene.drivers[-1].process.returncode != 0:
            again = SweepFolder(scene.folder).request.is_file()
            if not again:
                shutil.rmtree(scene.folder, ignore_errors=True)
            resume = mending("resume", scene.folder)
            driver = scene.start(resume if again else self.sweep(scene.folder), is_warm=True)
            if problems := ended_badly(driver, (0,)):
                return [f"then: {problem}" for problem in problems]
        problems = unlawful(scene.folder, N_TRIALS)
        problems += unequal(outcome(scene.folder), self.expected)
        problems += unreadable(scene.folder) + left_over(scene.folder)
        problems += unlike_weights(scene.folder, self.finished)
        return problems + self._unlike_documents(scene.folder)

    def _unlike_documents(self, folder: Path) -> list[str]:
        """The results beside the study that differ from those of the finished sweep."""
        places = (SweepFolder(folder), SweepFolder(self.finished))
        repeats, expected = (read_sealed_json(place.repeats) for place in places)
        return [] if repeats == expected else [f"repeats are {repeats}, not {expected}"]


def mending(command: str, folder: Path) -> list[str]:
    """A command that mends a sweep."""
    return [command, str(folder), *MENDS[command]]


def misread(folder: Path) -> list[str]:
    """What is wrong with commands that read a sweep: each works, or says what is wrong."""
    problems = []
    for arguments in (("front", str(folder), "--json"), ("explain", str(folder), "0001")):
        code, printed = run_here(*arguments)
        if code not in (0, 1, 2) or "--debug" in printed or (code and "must" not in printed):
            problems.append(f"{arguments[0]} exits with {code}: {printed[-500:]}")
    return problems


def digests(folder: Path) -> dict[str, str]:
    """The digest of each file in a folder, other than those that any command may change."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if name not in CHANGES
    }


def differing(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The files that differ."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
