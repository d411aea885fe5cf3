"""The front as a table for the console."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from search.files import write_sealed_json
from search.front.front import Front
from search.front.points import interval_text
from search.report.console_table import console_table
from tests.helpers.reports import ledger_of


def lines_of(folder: Path, front: Front) -> list[str]:
    console = Console(file=io.StringIO(), width=140)
    console.print(console_table(folder, front, {point.name: 0.25 for point in front.points}))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_each_point_has_its_accuracies_with_intervals(tmp_path: Path) -> None:
    front = ledger_of(6).results.front()
    rows = [line for line in lines_of(tmp_path, front) if line.startswith("│")]
    for row, point in zip(rows, front.points, strict=True):
        assert point.trial in row
        assert "│     25 │" in row
        for name, accuracy in point.accuracies.items():
            assert interval_text(accuracy, point.interval(name)) in row


def test_the_table_says_which_point_is_the_global_learner(tmp_path: Path) -> None:
    front = ledger_of(3, with_global=True).results.front()
    rows = [line for line in lines_of(tmp_path, front) if line.startswith("│")]
    assert [" global │" in row for row in rows] == [point.is_global for point in front.points]
    assert any(point.is_global for point in front.points)


def test_repeats_stand_beside_the_point_that_they_repeat(tmp_path: Path) -> None:
    front = ledger_of(1).results.front()
    point = front.points[0]
    rows = [
        {
            "trial": point.trial,
            "repeat": repeat,
            "mixing_ratio": point.mixing_ratio,
            "accuracies": {"natural": natural, "robust": 0.5},
        }
        for repeat, natural in ((1, 0.6), (2, 0.8))
    ]
    write_sealed_json(tmp_path / "repeats.json", {"repeats": rows})
    text = "\n".join(lines_of(tmp_path, front))
    assert text.count("; repeats 70.0 ± 14.1") == 1
    assert text.count("; repeats 50.0 ± 0.0") == 1


def test_the_ends_of_the_ratio_and_what_lies_below_the_region_of_interest_are_marked(
    tmp_path: Path,
) -> None:
    front = ledger_of(1).results.front()
    text = "\n".join(lines_of(tmp_path, front))
    assert "0 = natural" in text
    assert "1 = robust" in text
    assert " < " not in text
    least = max(point.accuracies["natural"] for point in front.points)
    bounded = Front.of(front.points, front.objectives, (least, 0.0))
    text = "\n".join(lines_of(tmp_path, bounded))
    n_below = sum(point.accuracies["natural"] < least for point in front.points)
    assert text.count(f" < {100 * least:g}") == n_below == len(front.points) - 1
