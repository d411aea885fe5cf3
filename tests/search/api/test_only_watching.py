"""What only watches a training cannot end it: TensorBoard, the terminal, the log and the report."""

from __future__ import annotations

import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from generalist_core.config import TrainConfig
from generalist_core.config.codec import to_json
from search.api.sweep import resume, sweep
from search.api.train import train
from search.cli.main import main
from search.config import Resources, SweepConfig
from search.report.write import write_files
from search.study.folder import open_sweep
from spaces import SPACES, Space, Trial
from tests import ROOT
from tests.helpers.tiny import tiny_config

# A background thread of TensorBoard that fails is reported by pytest, too.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

REQUEST = SweepConfig(
    base=tiny_config(),
    space="own",
    trials=3,
    sampler="random",
    early_stopping=None,
    resources=Resources(local=True),
)


def replace_by_a_file(path: Path) -> None:
    if path.is_dir():  # moved at once, since a thread may be writing into it
        path.rename(path.with_name(f"once {path.name}"))
    path.write_text("in the way")


def replace_by_a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    (path / "in the way").mkdir(parents=True, exist_ok=True)


def sabotaged(strike: Callable[[], None]) -> Space:
    """The space `smoke`, at whose third suggestion of a trial a fault strikes."""
    asked: list[Trial] = []

    def space(trial: Trial, base: TrainConfig) -> TrainConfig:
        asked.append(trial)
        if len(asked) == 5:  # twice it was tried before the first trial
            strike()
        return SPACES["smoke"](trial, base)

    return space


def swept(folder: Path, strike: Callable[[], None]) -> str:
    """What a sweep shows that is struck between its trials; all of them must complete."""
    console = Console(file=io.StringIO(), width=1000)
    done = sweep(REQUEST, folder, space=sabotaged(strike), console=console)
    assert open_sweep(folder).counts.completed == done.counts.completed == REQUEST.trials
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_tensorboard_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shown = swept(folder, lambda: replace_by_a_file(folder / "tensorboard"))
    assert shown.count("has stopped, while the training goes on") == 1
    assert f"TensorBoard in {folder / 'tensorboard'} has stopped" in shown
    assert "Traceback" not in shown
    assert "Traceback" in (folder / "log.txt").read_text()
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("name", "replace"),
    [
        ("report.html", replace_by_a_folder),
        ("front.png", replace_by_a_folder),
        ("plots", replace_by_a_file),
    ],
)
def test_a_report_that_cannot_be_written_says_how_to_write_it(
    tmp_path: Path, name: str, replace: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out"
    swept(folder, lambda: replace(folder / name))
    (said,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert said.startswith("The report is incomplete, but the study is not: ")
    assert said.endswith(f"generalist-search report {folder}")
    assert name in said
    caplog.clear()
    place = folder / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").is_file()


def test_a_resumed_sweep_needs_neither_a_log_nor_a_tensorboard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out"
    swept(folder, lambda: None)
    replace_by_a_folder(folder / "log.txt")
    replace_by_a_file(folder / "tensorboard")
    more = SweepConfig(**{**vars(REQUEST), "trials": 4})
    quiet = Console(quiet=True)
    assert resume(folder, more, space=SPACES["smoke"], console=quiet).counts.completed == 4
    said = " ".join(record.getMessage() for record in caplog.records)
    assert f"{folder / 'log.txt'} cannot be written" in said
    assert f"TensorBoard in {folder / 'tensorboard'} has stopped" in said


def test_a_single_training_needs_no_tensorboard_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "run" / "tensorboard"
    trained = train(tiny_config(), tmp_path / "run", on_epoch=lambda _: replace_by_a_file(place))
    assert trained.points
    assert caplog.text.count("has stopped, while the training goes on") == 1


@pytest.mark.parametrize("debug", [False, True])
def test_a_sweep_goes_on_after_its_terminal_has_gone(tmp_path: Path, debug: bool) -> None:
    (tmp_path / "config.json").write_text(to_json(tiny_config()))
    folder = tmp_path / "out"
    reader, writer = os.pipe()
    os.close(reader)
    words = ["sweep", "--config", tmp_path / "config.json", "--space", "smoke", "--local"]
    words += ["--trials", 2, "--out", folder, *(["--debug"] if debug else [])]
    done = subprocess.run(
        [sys.executable, "-m", "search", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=writer,
        check=False,
    )
    os.close(writer)
    assert open_sweep(folder).counts.total == 2
    assert (folder / "report.html").is_file()
    assert done.returncode == 0
    assert b"Hypervolume" in done.stdout


def test_an_error_in_the_report_is_no_end_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("search.report.write.write_plots", fail)
    swept(tmp_path / "out", lambda: None)
    assert "The report is incomplete" in caplog.text
    assert "ZeroDivisionError: planted" in caplog.text
    with pytest.raises(ZeroDivisionError):
        write_files(tmp_path / "out", open_sweep(tmp_path / "out").results)
