"""What an interrupted command says."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.cli.going_on import told_how_to_go_on
from search.errors import SweepInterruptedError
from search.folders import SweepFolder
from search.interruption import do_nothing, interruptible, on_interruption


def message(command: str, folder: Path) -> str:
    values = {"training": SimpleNamespace(out=folder)}
    told = told_how_to_go_on(command, values)
    with pytest.raises(SweepInterruptedError) as raised, told:
        raise KeyboardInterrupt
    return str(raised.value)


def test_a_command_that_has_written_nothing_is_run_again(tmp_path: Path) -> None:
    for command in ("sweep", "train", "front"):
        assert message(command, tmp_path) == "Interrupted. Run the command again."


def test_a_sweep_and_a_training_are_resumed(tmp_path: Path) -> None:
    SweepFolder(tmp_path).request.touch()
    for command in ("sweep", "train"):
        assert message(command, tmp_path).endswith(f": generalist-search resume {tmp_path}")


def test_a_signal_that_could_not_be_answered_is_answered_at_the_end() -> None:
    told = told_how_to_go_on("front", {})
    with (
        interruptible(),
        on_interruption(do_nothing),
        pytest.raises(SweepInterruptedError, match="Run the command again"),
        told,
    ):
        signal.raise_signal(signal.SIGTERM)
