"""What surrounds a sweep while it runs."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from search.api.sweep import sweep
from search.config import Resources, SweepConfig
from search.errors import SweepFolderError, SweepInterruptedError
from search.folders import SweepFolder
from search.interruption import Interrupted, raise_interrupted
from search.running.session import ended_by_signals, folder_in_place, write_errors_explained
from search.study.folder import open_sweep
from tests.helpers.tiny import tiny_config


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


def move(folder: Path) -> None:
    """Move the folder of a sweep once its first trial trains."""
    until = time.monotonic() + 120
    while not SweepFolder(folder).trial("0000").checkpoint.is_file() and time.monotonic() < until:
        time.sleep(0.02)
    folder.rename(folder.with_name("moved"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's
@pytest.mark.parametrize("local", [True, False])
def test_a_sweep_whose_folder_is_moved_ends_and_can_be_resumed(
    tmp_path: Path, local_ray: None, *, local: bool
) -> None:
    request = SweepConfig(
        base=replace(tiny_config(), epochs=60),
        space="smoke",
        trials=1,
        early_stopping=None,
        resources=Resources(local=local, workers=None if local else 1),
    )
    folder = tmp_path / "out"
    moves = threading.Thread(target=move, args=(folder,))
    moves.start()
    with pytest.raises(SweepInterruptedError, match=f"{folder} must stay in place .*resume"):
        sweep(request, folder)
    moves.join()
    shutil.rmtree(folder, ignore_errors=True)  # where Tune has written
    folder.with_name("moved").rename(folder)
    found = open_sweep(folder)
    assert (found.counts.failed, found.counts.unfinished) == (0, 1)


def test_an_error_in_a_folder_that_is_there_passes_and_in_another_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), folder_in_place(tmp_path):
        (tmp_path / "file").read_bytes()
    gone = tmp_path / "gone"
    with pytest.raises(SweepFolderError, match=f"{gone} must stay in"), folder_in_place(gone):
        (gone / "file").read_bytes()
