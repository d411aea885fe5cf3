"""Faults that strike a small local sweep alone: one at rest, one in progress, or its environment.

A kind is a name, what strikes, and what may follow. After each, one command has to mend the sweep,
or to say what is wrong and to change nothing; then what is wrong is put right.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from search.folders import SweepFolder
from tests.drill.damages import (
    CHANGES,
    EDITS,
    EITHER,
    FILES,
    FOLDERS,
    MENDED,
    REPLACEMENTS,
    Files,
    edit,
)
from tests.drill.sweeps import Driver, await_that, progress

Begin = Callable[..., Driver]
"""Begins a command, given the arguments of `Driver` other than the log."""


@dataclass(kw_only=True)
class Scene:
    """A sweep that is struck: its folder, its command if it runs, and what puts all right again."""

    folder: Path
    finished: Path
    killed: Path
    rng: Random
    begin: Begin
    drivers: list[Driver] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    undo: list[Callable[[], object]] = field(default_factory=list)

    @property
    def driver(self) -> Driver:
        """The first command."""
        return self.drivers[0]

    def start(self, arguments: list[str], shell: str = "", *, is_warm: bool = False) -> Driver:
        """Start a command."""
        self.drivers.append(self.begin(arguments, shell=shell, is_warm=is_warm))
        return self.drivers[-1]

    def keep(self, path: Path) -> None:
        """Remember a file or folder as it is, so that `mend` can put it back."""
        copy = self.folder.with_name(f"{self.folder.name}-kept-{len(self.undo)}")
        if path.is_dir():
            shutil.copytree(path, copy)
        elif path.exists():
            shutil.copy2(path, copy)
        self.damaged.append(path.name)
        self.undo.append(partial(_put_back, path, copy))

    def mend(self) -> None:
        """Put back what was damaged."""
        while self.undo:
            self.undo.pop()()


def _put_back(path: Path, copy: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if copy.exists():
        copy.rename(path)


@dataclass(frozen=True, kw_only=True)
class Single:
    """A kind of fault: where and how it strikes, and what may follow.

    `begins_with` is the sweep that is struck: a "finished" one or one that was "killed", which is
    struck and then mended by `mends`; or a "new" one, which is struck while it runs and ends with
    one of `codes`. `shell` sets the environment of the first command.
    """

    kind: str
    begins_with: str = "killed"
    strike: Callable[[Scene], None] = lambda _: None
    may: str = EITHER
    codes: tuple[int, ...] = (0, 1, 2)
    mends: tuple[str, ...] = ("resume",)
    shell: str = ""


def _pick(scene: Scene, pattern: str) -> Path:
    return scene.rng.choice(sorted(scene.folder.glob(pattern)))


def change(scene: Scene, pattern: str, name: str) -> None:
    path = _pick(scene, pattern)
    scene.keep(path)
    content = path.read_bytes()
    path.write_bytes(CHANGES[name](content, scene.rng) if content else b"\0")


def replace(scene: Scene, pattern: str, name: str) -> None:
    path = _pick(scene, pattern)
    scene.keep(path)
    others = sorted(path.parent.glob(f"*{path.suffix}"))  # the user has one file of a kind
    for sweep in (scene.folder, scene.killed, scene.finished):
        others += sorted(sweep.glob(pattern))
    others = [other for other in others if other.is_file() and not other.samefile(path)]
    REPLACEMENTS[name](path, scene.rng.choice(others))


def edit_request(scene: Scene, name: str) -> None:
    path = SweepFolder(scene.folder).request
    scene.keep(path)
    scene.damaged.append(name.strip().split(".")[-1])  # a refusal may also name the setting
    edit(path, name, EDITS[name])


def file_instead(scene: Scene, name: str) -> None:
    remove_folder(scene, name)
    (scene.folder / name).write_text("no folder")


def remove_folder(scene: Scene, name: str) -> None:
    scene.keep(scene.folder / name)
    shutil.rmtree(scene.folder / name)


def move(scene: Scene) -> None:
    moved = scene.folder.with_name(f"{scene.folder.name} moved, ä")
    scene.folder = scene.folder.rename(moved)


def copy(scene: Scene) -> None:
    copied = scene.folder.with_name(f"{scene.folder.name}-copied")
    shutil.copytree(scene.folder, copied)
    scene.folder = copied


MOMENTS: dict[str, Callable[[Scene, float], bool]] = {
    "the imports": lambda scene, u: time.monotonic() - scene.driver.began > 4 * u,
    "an epoch": lambda scene, u: progress(scene.folder) > u * progress(scene.finished),
    "a write": lambda scene, _: any(
        any(scene.folder.glob(p)) for p in (".*.*", "trials/*/.*.*", "study.journal.lock")
    ),
    "the repeats": lambda scene, _: SweepFolder(scene.folder).all_repeats.exists(),
    "the report": lambda scene, _: SweepFolder(scene.folder).report_lease.exists(),
}
"""Moments of a sweep: what is true from then on, given a number in [0, 1); some may be missed."""


def wait_for(scene: Scene, moment: str) -> None:
    u = scene.rng.random()
    await_that(lambda: MOMENTS[moment](scene, u) or not scene.driver.is_running)


def send(scene: Scene, number: int, moment: str) -> None:
    wait_for(scene, moment)
    scene.driver.signal(number)


def freeze(scene: Scene) -> None:
    """Stop the sweep for less than its lease lasts."""
    wait_for(scene, "an epoch")
    scene.driver.signal(signal.SIGSTOP)
    time.sleep(scene.rng.uniform(1, 5))
    scene.driver.signal(signal.SIGCONT)


def freeze_until_taken_over(scene: Scene) -> None:
    """Stop the sweep until another process has taken its lease and ended."""
    wait_for(scene, "an epoch")
    scene.driver.signal(signal.SIGSTOP)
    scene.start(["resume", str(scene.folder), "--local"]).wait()
    scene.driver.signal(signal.SIGCONT)


def start_another(scene: Scene) -> None:
    """Start a second process, which is refused as long as the first one runs."""
    wait_for(scene, "an epoch")
    scene.start(["resume", str(scene.folder), "--local"])


def remove_lease(scene: Scene) -> None:
    wait_for(scene, "an epoch")
    SweepFolder(scene.folder).lease.unlink(missing_ok=True)


def while_running(scene: Scene, name: str) -> None:
    """Put a file in the place of a folder until the sweep has ended."""
    wait_for(scene, "an epoch")
    path, aside = scene.folder / name, scene.folder.with_name(f"{scene.folder.name}-{name}")
    scene.driver.signal(signal.SIGSTOP)
    if path.exists():
        path.rename(aside)
        path.write_text("no folder")
        scene.undo.append(partial(_put_back, path, aside))
    scene.driver.signal(signal.SIGCONT)


def copy_while_running(scene: Scene) -> None:
    wait_for(scene, "an epoch")
    scene.driver.signal(signal.SIGSTOP)
    copy(scene)
    scene.driver.signal(signal.SIGCONT)


SHELLS = {
    "LC_ALL=C": "export LC_ALL=C",
    "LC_ALL=C without UTF-8": "export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
    "TZ": "export TZ=Pacific/Kiritimati",
    "TZ that does not exist": "export TZ=Nowhere/At_all",
    "PYTHONOPTIMIZE=1": "export PYTHONOPTIMIZE=1",
    "PYTHONOPTIMIZE=2": "export PYTHONOPTIMIZE=2",
    "PYTHONWARNINGS=error": "export PYTHONWARNINGS=error",
    "PYTHONHASHSEED": "export PYTHONHASHSEED=1",
    "PYTHONDEVMODE": "export PYTHONDEVMODE=1",
    "HOME that does not exist": "export HOME=/nowhere/at/all",
    "TMPDIR that does not exist": "export TMPDIR=/nowhere/at/all",
    "PATH that is empty": "export PATH=/nowhere",
    "no environment": 'exec env -i OMP_NUM_THREADS=1 "$@"',
    "TERM=dumb, one column": "export TERM=dumb COLUMNS=1",
    "umask 077": "umask 077",
    "umask 000": "umask 000",
    "12 open files": "ulimit -n 12",
    "40 open files": "ulimit -n 40",
    "files of at most 1 KiB": "ulimit -f 1",
    "files of at most 40 KiB": "ulimit -f 40",
    "files of at most 1 MiB": "ulimit -f 1024",
    "4 s of processor time": "ulimit -t 4",
    "8 GB of address space": "ulimit -v 8000000",
    "no standard input": "exec <&-",
    "no standard output": "exec >&-",
    "no standard error": "exec 2>&-",
    "full standard output": "exec >/dev/full",
    "full standard error": "exec 2>/dev/full",
    "SIGINT ignored": "trap '' INT",
    "lowest priority": 'exec nice -n 19 "$@"',
}
"""Environments of a command, as a shell sets them."""

ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGKILL")


def _of_files(files: Files) -> list[Single]:
    where = f"{files.pattern}, {'finished' if files.is_finished else 'unfinished'}: "
    common = {"begins_with": "finished" if files.is_finished else "killed", "mends": files.mends}
    return [
        Single(
            kind=where + name,
            strike=partial(act, pattern=files.pattern, name=name),
            may=EITHER if name == "a folder instead" else files.may,
            **common,
        )
        for act, names in ((change, CHANGES), (replace, REPLACEMENTS))
        for name in names
    ]


SINGLES = (
    *itertools.chain.from_iterable(map(_of_files, FILES)),
    *(
        Single(kind=f"sweep.json edited: {name}", strike=partial(edit_request, name=name))
        for name in EDITS
    ),
    *(
        Single(kind=f"{name}/ {what}", strike=partial(act, name=name), begins_with=begins)
        for what, act in (("a file instead", file_instead), ("deleted", remove_folder))
        for begins, name in zip(("finished",) * len(FOLDERS), FOLDERS, strict=True)
    ),
    Single(kind="folder moved", strike=move, may=MENDED),
    Single(kind="folder copied", strike=copy, may=MENDED),
    *(
        Single(
            kind=f"{name} to a local sweep in {moment}",
            begins_with="new",
            strike=partial(send, number=signal.Signals[name], moment=moment),
            codes=(0, 1, -signal.Signals[name]),
        )
        for name in ENDING
        for moment in MOMENTS
    ),
    Single(kind="frozen", begins_with="new", strike=freeze, codes=(0,)),
    Single(
        kind="frozen until taken over",
        begins_with="new",
        strike=freeze_until_taken_over,
        codes=(0, 1),
    ),
    Single(kind="a second process", begins_with="new", strike=start_another, codes=(0,)),
    Single(kind=".lease removed", begins_with="new", strike=remove_lease, codes=(0, 1)),
    Single(
        kind="folder copied while it runs", begins_with="new", strike=copy_while_running, codes=(0,)
    ),
    *(
        Single(
            kind=f"{name}/ a file instead, while it runs",
            begins_with="new",
            strike=partial(while_running, name=name),
            codes=(0, 1),
        )
        for name in ("tensorboard", "trials", "warmups")
    ),
    *(Single(kind=f"resumed with {name}", shell=shell) for name, shell in SHELLS.items()),
)
