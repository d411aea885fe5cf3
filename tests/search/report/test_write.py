"""The files that a report consists of."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from generalist_core.config.mixing import ratio_text
from search.cli.main import main
from search.folders import SweepFolder
from search.report.write import write_page
from search.study.folder import open_sweep
from tests.helpers.reports import Page, csv_file, ledger_of
from tests.helpers.small_sweep import copy_of


@pytest.mark.slow
def test_the_csv_has_the_points_on_the_front(two_trials: Path) -> None:
    front = open_sweep(two_trials).front
    with SweepFolder(two_trials).front_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f"{name}{end}" for name in front.objectives for end in ("", "_low", "_high")]
    assert list(rows[0]) == ["trial", "mixing_ratio", *names, "n_images"]
    for row, point in zip(rows, front.points, strict=True):
        assert row["trial"] == point.trial
        assert row["mixing_ratio"] == ratio_text(point.mixing_ratio)
        for name, accuracy in point.accuracies.items():
            ends = (accuracy, *point.interval(name))
            assert [float(row[f"{name}{end}"]) for end in ("", "_low", "_high")] == list(ends)


def test_a_sweep_without_a_point_has_a_page(tmp_path: Path) -> None:
    write_page(tmp_path, ledger_of(0).results)
    assert "The front is empty." in Page(SweepFolder(tmp_path).report.read_text()).text


@pytest.mark.slow
def test_the_command_writes_all_again(two_trials: Path, tmp_path: Path) -> None:
    folder = copy_of(two_trials, tmp_path / "out").folder
    (folder / "report.html").unlink()
    path = csv_file(tmp_path, "name,natural,robust\nMadry et al.,87.3,45.8\n")
    assert main(["report", str(folder), "--reference", str(path)]) == 0
    page = Page((folder / "report.html").read_text())
    assert "Madry et al." in json.dumps(page.figures["front"])
    assert (folder / "plots" / "front.svg").is_file()
