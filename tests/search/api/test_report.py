"""The report of a sweep, written again."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.api.report import write_report
from search.files import read_json
from search.folders import SweepFolder
from search.report.published import ReferencePoint
from search.study.failures import Failure
from search.study.folder import open_sweep
from spaces import SPACES
from tests.helpers.small_sweep import copy_of


@pytest.mark.slow
def test_the_files_are_written_again_with_published_points(
    two_trials: Path, tmp_path: Path
) -> None:
    sweep = copy_of(two_trials, tmp_path / "sweep")
    files = SweepFolder(sweep.folder)
    written = [files.report, files.front_json, files.front_csv, files.front_picture]
    for path in written:
        path.unlink(missing_ok=True)
    accuracies = {"natural": 0.873, "robust": 0.458}
    reference = ReferencePoint(name="Madry et al.", accuracies=accuracies, details={})
    write_report(sweep, [reference])
    assert all(path.is_file() for path in written)
    assert "Madry et al." in files.report.read_text()
    assert len(read_json(files.front_json)["points"]) == len(sweep.front.points)


@pytest.mark.slow
def test_a_report_that_was_begun_early_shows_the_trials_that_ended_since(
    two_trials: Path, tmp_path: Path
) -> None:
    early = copy_of(two_trials, tmp_path / "sweep")
    ledger = open_sweep(early.folder).ledger
    trial = ledger.ask(SPACES["smoke"], early.config.base).trial
    ledger.tell_failed(trial, Failure(kind="error", reason="planted"))
    write_report(early)
    files = SweepFolder(early.folder)
    assert read_json(files.front_json)["trials"]["failed"] == 1
    assert not files.report_lease.exists()
