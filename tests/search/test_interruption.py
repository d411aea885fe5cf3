"""Signals: what the first and the second one do, and that handlers are as before afterwards."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from search import interruption
from search.interruption import (
    SIGNALS,
    Interrupted,
    descendants,
    do_nothing,
    interruptible,
    kill,
    on_interruption,
    raise_interrupted,
    set_handlers_again,
    was_interrupted,
)
from tests.drill.checks import outcome
from tests.drill.sweeps import Driver, await_that, heed_signals

SWEEP = (
    *("sweep", "--data", "digits", "--n-train", "240", "--n-validation", "100", "--width", "4"),
    *("--epochs", "3", "--batch-size", "32", "--space", "smoke", "--trials", "2", "--workers", "1"),
    *("--set", "evaluation.every_epochs=1", "--deterministic", "--repeats", "2"),
)


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    before = heed_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", SIGNALS)
def test_the_first_signal_is_acknowledged_and_raised(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with pytest.raises(Interrupted), interruptible():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before
    assert capfd.readouterr().err.startswith(f"generalist-search: {name}: ending in order")


def test_a_command_that_is_not_in_its_stride_leaves_the_first_signal_for_later() -> None:
    """Between the handlers and the command there is nobody who would take what is raised."""
    with interruptible(answer=do_nothing):
        signal.raise_signal(signal.SIGHUP)
        assert was_interrupted()
        with pytest.raises(Interrupted), on_interruption(raise_interrupted):
            pytest.fail("The block was entered.")


def test_a_second_signal_ends_at_once_unless_it_is_the_same(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[bool] = []
    with interruptible(lambda: ended.append(True)), on_interruption(do_nothing):
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(interruption, "SAME_S", float("inf"))
        signal.raise_signal(signal.SIGTERM)
        assert ended == []
        monkeypatch.setattr(interruption, "SAME_S", -1.0)
        signal.raise_signal(signal.SIGHUP)
        assert ended == [True]
    assert capfd.readouterr().err.count("ending in order") == 1


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible():
        signal.raise_signal(signal.SIGHUP)
        assert not was_interrupted()


def test_what_came_earlier_is_answered_at_the_next_chance() -> None:
    with interruptible(), on_interruption(do_nothing):
        signal.raise_signal(signal.SIGINT)
        assert was_interrupted()
        with pytest.raises(Interrupted), on_interruption(raise_interrupted):
            pytest.fail("The block was entered.")
    assert not was_interrupted()


def test_a_block_within_another_has_no_effect() -> None:
    with interruptible(), on_interruption(do_nothing):
        with interruptible(), on_interruption(do_nothing):
            signal.raise_signal(signal.SIGINT)
        assert was_interrupted()


def test_handlers_that_c_code_removed_are_set_again() -> None:
    with interruptible(), on_interruption(do_nothing):
        ctypes.CDLL(None).signal(int(signal.SIGTERM), None)
        set_handlers_again()
        signal.raise_signal(signal.SIGTERM)
        assert was_interrupted()


def test_other_threads_are_let_pass() -> None:
    entered: list[bool] = []

    def enter() -> None:
        with interruptible(), on_interruption(raise_interrupted):
            entered.append(was_interrupted())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [False]


def test_processes_of_processes_are_found_and_ended() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    others = descendants()  # such as a Ray that other tests share
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        while len(found := descendants() - others) < 2:
            time.sleep(0.01)
        assert child.pid in found
        kill(found)
    assert child.returncode == -signal.SIGKILL
    assert os.getpid() not in found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """The operating points of the sweep that the tests below interrupt."""
    folder = tmp_path_factory.mktemp("undisturbed")
    driver = Driver([*SWEEP, "--local", "--out", str(folder / "out")], folder / "log")
    assert driver.wait() == 0, driver.said
    return outcome(folder / "out").points


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "name"),
    [
        ("the first line", "SIGHUP"),
        ("libtorch", "SIGINT"),
        ("out/study.journal", "SIGTERM"),
        ("out/trials/*/metrics.jsonl", "SIGQUIT"),
        ("out/repeats/*/metrics.jsonl", "SIGTERM"),
        ("out/front.json", "SIGINT"),
    ],
)
def test_a_local_sweep_ends_in_order_and_resumes(
    moment: str, name: str, tmp_path: Path, undisturbed: dict[Any, Any]
) -> None:
    assert _interrupted_and_resumed([*SWEEP, "--local"], moment, name, tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "name"),
    [
        ("/gcs_server", "SIGTERM"),
        ("/raylet/raylet", "SIGINT"),
        ("out/trials/*/metrics.jsonl", "SIGTERM"),
        ("out/trials/*/metrics.jsonl", "SIGHUP"),
        ("out/repeats/*/metrics.jsonl", "SIGINT"),
        ("out/front.json", "SIGTERM"),
    ],
)
def test_a_sweep_on_ray_ends_in_order_and_resumes(
    moment: str, name: str, tmp_path: Path, undisturbed: dict[Any, Any]
) -> None:
    assert _interrupted_and_resumed(SWEEP, moment, name, tmp_path) == undisturbed


def _interrupted_and_resumed(
    arguments: Sequence[str], moment: str, name: str, place: Path
) -> dict[Any, Any]:
    """The points of a sweep that its process group was sent a signal at a moment, and resumed."""
    command = [*arguments, "--out", str(place / "out")]
    driver = Driver(command, place / "log")
    assert await_that(lambda: _has_come(moment, driver, place))
    os.killpg(driver.process.pid, signal.Signals[name])
    code = driver.wait()
    is_alone = await_that(lambda: not driver.family(), 10.0)
    assert (code, is_alone, driver.end()) == (1, True, {}), driver.said
    assert f"{name}: ending in order" in driver.said
    can_resume = (place / "out" / "sweep.json").is_file()
    how = "Continue: generalist-search resume" if can_resume else "Run the command again."
    assert f"Interrupted. {how}" in driver.said
    again = Driver(["resume", str(place / "out")] if can_resume else command, place / "again")
    assert again.wait() == 0, again.said
    return outcome(place / "out").points


def _has_come(moment: str, driver: Driver, place: Path) -> bool:
    """Whether handlers are set, a library is loaded, a process runs, or a file is there."""
    process = Path("/proc", str(driver.process.pid))
    if moment == "the first line":
        (caught,) = re.findall("SigCgt:\t(.*)", (process / "status").read_text())
        return bool(int(caught, 16) >> (signal.SIGQUIT - 1) & 1)
    if moment.startswith("lib"):
        return moment in (process / "maps").read_text()
    return bool(driver.processes(moment) if moment[0] == "/" else [*place.glob(moment)])
