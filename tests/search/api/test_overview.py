"""The sweeps below a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from search.api.overview import SweepOverview, list_sweeps, sweeps_table
from search.errors import SweepFolderError
from search.lease import leased
from search.study.folder import begin_ledger, custom_parts
from spaces import SPACES
from tests.helpers.small_sweep import copy_of


def test_sweeps_are_found_at_any_depth_but_not_inside_of_each_other(
    two_trials: Path, tmp_path: Path
) -> None:
    deep = copy_of(two_trials, tmp_path / "a" / "b" / "deep")
    copy_of(two_trials, deep.folder / "lost" / "inside")
    copy_of(two_trials, tmp_path / ".trash" / "hidden")
    copy_of(two_trials, tmp_path / "flat")
    found = list_sweeps(tmp_path)
    assert list(found) == [str(tmp_path / "a/b/deep"), str(tmp_path / "flat")]
    assert list_sweeps(deep.folder).keys() == {str(deep.folder)}
    overview = found[str(deep.folder)]
    assert isinstance(overview, SweepOverview)
    assert overview.counts == deep.counts
    assert overview.hypervolume == deep.hypervolume
    assert (overview.data, overview.space, overview.trials) == ("digits", "smoke", 2)
    assert overview.forward_images == deep.results.cost()["forward_images"]
    assert not overview.is_running
    assert (overview.has_ended, overview.state) == (True, "ended")
    assert sweeps_table(found, tmp_path).row_count == 2


def test_a_sweep_runs_while_a_process_has_its_lease(two_trials: Path, tmp_path: Path) -> None:
    sweep = copy_of(two_trials, tmp_path / "sweep")
    with leased(sweep.files.lease, waits=False):
        (overview,) = list_sweeps(tmp_path).values()
    assert isinstance(overview, SweepOverview)
    assert overview.is_running
    assert overview.state == "running"


def test_an_interruption_between_trials_is_no_end(two_trials: Path, tmp_path: Path) -> None:
    """Before the first trial, too; a study without a note has ended if it has trials."""
    sweep = copy_of(two_trials, tmp_path / "some")
    request = dataclasses.replace(sweep.config, storage=None)
    (tmp_path / "none").mkdir()
    empty = begin_ledger(tmp_path / "none", request, custom_parts(None, None), {})
    (tmp_path / "begun").mkdir()
    begun = begin_ledger(tmp_path / "begun", request, custom_parts(None, None), {})
    begun.ask(SPACES["smoke"], request.base)

    def states() -> dict[str, str]:
        found = list_sweeps(tmp_path)
        return {Path(k).name: v.state for k, v in found.items() if isinstance(v, SweepOverview)}

    assert states() == {"begun": "1 unfinished", "none": "interrupted", "some": "ended"}
    for ledger in (empty, begun, sweep.ledger):
        ledger.note_end(has_ended=False)
    assert states() == {"begun": "1 unfinished", "none": "interrupted", "some": "interrupted"}
    for ledger in (empty, begun, sweep.ledger):
        ledger.note_end(has_ended=True)
    assert states() == {"begun": "1 unfinished", "none": "ended", "some": "ended"}


def test_one_that_does_not_open_has_its_reason_and_hides_no_other(
    two_trials: Path, tmp_path: Path
) -> None:
    copy_of(two_trials, tmp_path / "good")
    damaged = copy_of(two_trials, tmp_path / "damaged")
    damaged.files.request.write_text("{")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "sweep.json").write_text("[1]")
    reasons = {Path(folder).name: found for folder, found in list_sweeps(tmp_path).items()}
    assert isinstance(reasons.pop("good"), SweepOverview)
    assert "must be JSON, but is damaged" in str(reasons["damaged"])
    assert "must hold a sweep's request" in str(reasons["foreign"])


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    assert list_sweeps(tmp_path) == {}
    with pytest.raises(SweepFolderError, match="must be a folder"):
        list_sweeps(tmp_path / "none")
