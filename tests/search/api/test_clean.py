"""What `clean` removes, and that every other command still finds what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

import search
from search.api.clean import clean
from search.config import SweepConfig
from search.errors import SweepFolderError
from search.files import disk_bytes
from search.lease import leased
from tests.helpers.small_sweep import copy_of
from tests.helpers.tiny import tiny_config

LOCAL = search.Resources(local=True)


def with_rubbish(folder: Path) -> int:
    """Put what can go into a folder of a sweep; returns its bytes."""
    for name in ("warmups/key/3.pt", "ray/a/b", "trials/0000/checkpoint.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 1000)
    (folder / "trials/0000/.points.json.0123456789abcdef").write_bytes(b"x" * 1000)
    return 4000


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_says_what_the_run_frees_and_changes_nothing(
    two_trials: Path, tmp_path: Path
) -> None:
    folder = copy_of(two_trials, tmp_path / "sweep").folder
    clean(folder)  # a trial that is not on the front has left weights
    kept = everything(folder)
    size = with_rubbish(folder)
    before = everything(folder)
    expected = clean(folder, dry_run=True)
    assert everything(folder) == before
    assert sum(expected.values()) == size
    total = disk_bytes(folder)
    assert clean(folder) == expected
    assert disk_bytes(folder) == total - size
    assert everything(folder) == kept
    assert clean(folder) == {}


def test_front_report_export_and_verify_do_without(two_trials: Path, tmp_path: Path) -> None:
    folder = copy_of(two_trials, tmp_path / "sweep").folder
    with_rubbish(folder)
    before = search.open_sweep(folder).front
    clean(folder)
    sweep = search.open_sweep(folder)
    assert sweep.front == before
    search.write_report(sweep)
    for point in sweep.front.points:
        search.export(sweep, point.name, tmp_path / f"{point.name}.pt")
    document = search.verify(sweep, search.VerifyConfig(attacks=("fgsm",), n_images=10))
    assert len(document["points"]) == len(before.points)


@pytest.mark.slow
@pytest.mark.parametrize("space", ["mixing", "lineages"])
def test_a_resume_with_more_trials_trains_again_what_was_removed(
    space: str, tmp_path: Path
) -> None:
    config = SweepConfig(base=tiny_config(), space=space, trials=4, resources=LOCAL)
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        search.sweep(config, folder)
    assert clean(other)["shared warm-ups"] > 0
    more = SweepConfig(base=tiny_config(), space=space, trials=7, resources=LOCAL)
    kept, cleaned = search.resume(one, more), search.resume(other, more)
    assert cleaned.counts == kept.counts
    assert [p.accuracies for p in cleaned.front.points] == [p.accuracies for p in kept.front.points]
    assert (
        cleaned.results.cost()["forward_images"] >= kept.results.cost()["forward_images"]
    )  # warm-ups


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_sweep_that_runs_is_left_alone(two_trials: Path, tmp_path: Path, dry_run: bool) -> None:
    sweep = copy_of(two_trials, tmp_path / "sweep")
    with_rubbish(sweep.folder)
    with (
        leased(sweep.files.lease, waits=False),
        pytest.raises(SweepFolderError, match=r"another runs it|but it runs"),
    ):
        clean(sweep.folder, dry_run=dry_run)
    assert sweep.files.ray.exists()


def test_a_folder_without_a_sweep_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with_rubbish(tmp_path)
    before = everything(tmp_path)
    with pytest.raises(SweepFolderError, match=r"sweep\.json must exist"):
        clean(tmp_path)
    assert everything(tmp_path) == before
