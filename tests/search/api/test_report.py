"""The report of a sweep, written again."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.api.report import write_report
from search.files import read_json
from search.folders import SweepFolder
from search.report.published import ReferencePoint
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
    assert len(list(files.models.iterdir())) == len(sweep.front.points)
