"""What surrounds a sweep while it runs."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from search.errors import SweepInterruptedError
from search.folders import SweepFolder
from search.interruption import Interrupted, raise_interrupted
from search.running.session import ended_by_signals, write_errors_explained


def test_an_interrupted_sweep_says_how_to_continue_once_it_has_begun(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), ended_by_signals(tmp_path):
        raise_interrupted()
    SweepFolder(tmp_path).request.touch()
    again = f"Interrupted. Continue: generalist-search resume {tmp_path}"
    with pytest.raises(SweepInterruptedError, match=again), ended_by_signals(tmp_path):
        raise_interrupted()


def test_a_full_disk_says_how_to_continue(tmp_path: Path) -> None:
    with (
        pytest.raises(SweepInterruptedError, match=r"space and be writable.*resume"),
        write_errors_explained(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_errors_explained(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "No such file")
