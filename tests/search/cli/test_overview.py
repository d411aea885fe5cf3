"""The commands for all sweeps of a folder, and for what is in one of them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from search.cli.main import main
from tests.helpers.small_sweep import copy_of


def test_list_prints_sweeps_and_damaged_ones(
    two_trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"No sweep in {tmp_path}\n"
    copy_of(two_trials, tmp_path / "good")
    copy_of(two_trials, tmp_path / "damaged").files.request.write_text("{")
    assert main(["list", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "good" in shown
    assert "cannot be opened" in shown
    assert main(["list", str(tmp_path), "--json"]) == 0
    sweeps = json.loads(capsys.readouterr().out)["sweeps"]
    assert sweeps[str(tmp_path / "good")]["counts"]["completed"] == 2
    assert "is damaged" in sweeps[str(tmp_path / "damaged")]["error"]


def test_list_begins_in_the_working_directory(
    two_trials: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy_of(two_trials, tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    assert main(["list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["sweeps"]) == ["here"]


def test_trials_are_printed_sorted_in_three_forms(
    two_trials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lr = "experts.natural.optimizer.lr"
    assert main(["trials", str(two_trials), "--sort", f"-{lr}", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert float(rows[0][lr]) > float(rows[1][lr])
    assert {row["state"] for row in rows} == {"completed"}
    assert main(["trials", str(two_trials), "--sort", lr, "--json"]) == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert [trial["trial"] for trial in trials] == [row["trial"] for row in rows[::-1]]
    assert [trial[lr] for trial in trials] == [float(row[lr]) for row in rows[::-1]]
    assert trials[0]["reason"] is None
    assert main(["trials", str(two_trials), "--sort", lr]) == 0
    shown = capsys.readouterr().out
    assert all(f"{float(row[lr]):.4g}" in shown for row in rows)
    assert main(["trials", str(two_trials), "--sort", "best_robus"]) == 2
    assert "Did you mean best_robust?" in capsys.readouterr().err


def test_compare_prints_a_table_and_writes_a_page(
    two_trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, page = copy_of(two_trials, tmp_path / "other").folder, tmp_path / "page.html"
    table = ["compare", str(two_trials), str(other)]
    before = sorted(Path().iterdir())
    assert main(table) == main(table) == 0
    assert "--to FILE writes a page" in capsys.readouterr().out
    assert sorted(Path().iterdir()) == before
    command = [*table, "--to", str(page)]
    assert main(command) == 0
    assert f"Written: {page}" in capsys.readouterr().out
    assert "2 sweeps compared" in page.read_text()
    assert main(command) == 2
    assert "must be a new file" in capsys.readouterr().err
    assert main([*command, "--force", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["sweeps"]) == 2
    twice = ["compare", str(other), f"{other}/../other", "--to", str(tmp_path / "b.html")]
    assert main(twice) == 2
    assert "two sweeps or more to compare" in capsys.readouterr().err
    assert not (tmp_path / "b.html").exists()


def test_clean_says_what_it_frees(
    two_trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = copy_of(two_trials, tmp_path / "sweep")
    sweep.files.ray.mkdir()
    (sweep.files.ray / "state").write_bytes(b"x" * 10_000_000)
    assert main(["clean", str(sweep.folder), "--dry-run"]) == 0
    assert "10.0 MB  files of Ray Tune" in capsys.readouterr().out
    assert sweep.files.ray.exists()
    assert main(["clean", str(sweep.folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["removed"]
    assert document["bytes"]["files of Ray Tune"] == 10_000_000
    assert not sweep.files.ray.exists()
