"""A repeat is trained once: a later call resumes it, or reads its points."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.files import read_sealed_json
from search.folders import TrialFolder
from search.running.local import map_locally
from search.running.repeats import RepeatJob, run_repeat
from tests.helpers.problems import tiny_dataset, two_experts
from tests.helpers.tiny import begin, finish


def test_a_repeat_is_resumed_and_read_when_it_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = read_sealed_json(finish(begin(tmp_path / "alone")).files.points)["points"]
    files = TrialFolder(tmp_path / "0000-1")
    job = RepeatJob(trial="0000", repeat=1, folder=files.root, config=two_experts())
    begin(files.root).advance()
    assert run_repeat(job, threads=1, data=tiny_dataset(), model=None) == expected
    assert not files.checkpoint.exists()
    written = files.metrics.read_bytes()
    assert written.count(b"\n") == two_experts().epochs
    assert run_repeat(job, threads=1, data=tiny_dataset(), model=None) == expected
    assert files.metrics.read_bytes() == written
    files.points.write_bytes(files.points.read_bytes().replace(b"0.", b"1.", 1))
    assert run_repeat(job, threads=1, data=tiny_dataset(), model=None) == expected
    assert "points.json must be as it was written" in caplog.text
    assert read_sealed_json(files.points)["points"] == expected


def test_a_folder_that_cannot_be_used_is_no_failure_of_a_repeat(tmp_path: Path) -> None:
    """Found by the drill: it counted as one, and `repeats.json` was replaced by an empty one."""
    (tmp_path / "repeats").write_text("no folder")
    folder = tmp_path / "repeats" / "0000-1"
    job = RepeatJob(trial="0000", repeat=1, folder=folder, config=two_experts())
    with pytest.raises(NotADirectoryError):
        list(map_locally(run_repeat, [job], threads=1, data=tiny_dataset(), model=None))
