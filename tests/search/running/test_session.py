"""What surrounds a sweep while it runs."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.errors import SweepInterruptedError
from search.running.session import interrupted_by_sigterm, write_errors_explained


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that Ctrl-C interrupts; one that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_sigterm_is_an_interrupt_inside_only() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_may_run_a_sweep() -> None:
    entered: list[bool] = []

    def run() -> None:
        with interrupted_by_sigterm():
            entered.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert entered == [True]


def test_a_full_disk_says_how_to_continue(tmp_path: Path) -> None:
    with (
        pytest.raises(SweepInterruptedError, match=r"space and be writable.*resume"),
        write_errors_explained(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_errors_explained(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "No such file")
