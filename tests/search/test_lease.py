"""One process at a time has a lease, and knows when it no longer has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.errors import SweepFolderError, SweepInterruptedError
from search.lease import LEASE_S, Lease, is_held, leased
from tests import ROOT

HOLDER = """
import pathlib, sys, time
from search.lease import Lease
lease = Lease(pathlib.Path(sys.argv[1]), 1.5)
assert lease.acquire()
print("has it", flush=True)
sys.stdin.readline()
try:
    lease.require()
except RuntimeError as error:
    print(error)
lease.release()
"""

DURATION_S = 1.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the lease, and checks it once it is told to."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        yield process
        process.kill()


def test_a_lease_is_had_once_and_is_free_again(path: Path) -> None:
    with (
        leased(path, waits=False) as lease,
        pytest.raises(SweepFolderError, match="one process at a time, but another runs it"),
        leased(path, waits=False),
    ):
        pytest.fail("Two had the lease.")
    with pytest.raises(SweepInterruptedError):
        lease.require()
    with leased(path, waits=False) as lease:
        lease.require()
    assert not path.exists()


def test_a_lease_whose_file_is_removed_is_lost_and_can_be_had_by_another(path: Path) -> None:
    first, second = Lease(path, DURATION_S), Lease(path, DURATION_S)
    assert first.acquire()
    path.unlink()
    with pytest.raises(SweepInterruptedError, match="but names another, or was removed"):
        first.require()
    assert second.acquire()
    with pytest.raises(SweepInterruptedError):
        first.require()
    first.release()
    second.require()
    second.release()


@pytest.mark.parametrize("content", ["", "torn"])
@pytest.mark.slow
def test_a_file_that_names_nobody_is_taken_over(content: str, path: Path) -> None:
    path.write_text(content)
    lease = Lease(path, DURATION_S)
    assert lease.acquire()
    lease.require()
    lease.release()


@pytest.mark.slow
def test_who_waits_has_the_lease_after_a_living_holder(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    assert not Lease(path, DURATION_S).acquire()
    assert holder.stdin is not None
    holder.stdin.close()
    lease = Lease(path, DURATION_S)
    assert lease.acquire(waits=True)
    lease.release()


@pytest.mark.slow
def test_a_holder_that_was_killed_is_followed_at_once(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    lease = Lease(path, 3600.0)
    assert lease.acquire()
    lease.release()


@pytest.mark.slow
def test_a_holder_that_slept_too_long_knows_when_it_wakes(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGSTOP)
    lease = Lease(path, DURATION_S)
    assert lease.acquire()
    os.kill(holder.pid, signal.SIGCONT)
    said, _ = holder.communicate("\n")
    assert "This one has stopped, and has recorded nothing since." in said
    lease.require()
    lease.release()


def test_a_reader_sees_whether_a_living_process_holds_a_lease(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    assert is_held(path)
    content = path.read_bytes()
    holder.kill()
    holder.wait()
    assert not is_held(path)
    path.write_bytes(content.replace(b"host=", b"host=other-"))
    assert is_held(path)
    long_ago = path.stat().st_mtime - LEASE_S - 1
    os.utime(path, (long_ago, long_ago))
    assert not is_held(path)
    path.write_text("torn")
    assert not is_held(path)
    path.unlink()
    assert not is_held(path)
    assert not path.exists()
