"""Ray's view of a search."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher as RaySearcher
from ray.tune.search import SearchGenerator

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_json
from search.api.sweep import sweep
from search.config import Limits, SuccessiveHalving, SweepConfig
from search.front.points import point_to_dict
from search.running.ray_tuner import DeathReporter, RungStopper, TuneSearcher, cause_of
from search.scheduling.early_stopping import Rungs
from search.study.failures import Failure
from tests.helpers.ledgers import release
from tests.helpers.problems import tiny_dataset
from tests.helpers.searches import LAST, epoch, searcher
from tests.helpers.tiny import tiny_config


def dies(ray: TuneSearcher, trial_id: str, folder: Path, *errors: str) -> None:
    """Ray gives a trial up, and writes these errors."""
    (folder / "error.txt").write_bytes("".join(f"{error}\n" for error in errors).encode("latin1"))
    ray.on_trial_complete(trial_id, error=True)
    trial = SimpleNamespace(trial_id=trial_id, error_file=str(folder / "error.txt"))
    DeathReporter(ray).on_trial_error(1, [], trial)


def tuned(folder: Path, **others: Any) -> TuneSearcher:
    return TuneSearcher(searcher(**others), folder)


def test_ray_is_told_to_wait_while_the_search_is_full_and_to_end_after_its_trials(
    tmp_path: Path,
) -> None:
    ray = tuned(tmp_path, n_trials=2, n_workers=1)
    first = ray.suggest("a")
    assert first["folder"] == str(tmp_path / "0000")
    assert from_json(first["config"], TrainConfig).experts[0].name == "natural"
    assert ray.suggest("b") is None
    dies(ray, "a", tmp_path)
    assert ray.suggest("b")["trial"] == "0001"
    assert ray.suggest("c") is None
    ray.begun("b")
    assert ray.suggest("c") == RaySearcher.FINISHED


def test_a_trial_that_ray_recovers_and_gives_up_in_one_step_is_proposed_again(
    tmp_path: Path,
) -> None:
    ray = tuned(tmp_path, n_trials=1)
    first, reporter = ray.suggest("a"), DeathReporter(ray)
    trial = SimpleNamespace(trial_id="a", error_file="unread")
    reporter.on_trial_recover(7, [], trial)
    ray.on_trial_complete("a", error=True)
    reporter.on_trial_error(7, [], trial)
    assert ray.search.ledger.results.failures() == {}
    assert ray.suggest("b") == first
    ray.begun("b")
    assert ray.suggest("c") == RaySearcher.FINISHED


def test_ray_saves_a_search_without_taking_it_for_a_wrapper(tmp_path: Path) -> None:
    """Ray saves whatever is in an attribute `searcher` as one of its own."""
    SearchGenerator(tuned(tmp_path)).save_to_dir(str(tmp_path), "session")
    assert list(tmp_path.glob("search_gen_state-*"))


def test_the_ratio_that_was_asked_for_is_released_too(tmp_path: Path) -> None:
    ray = tuned(tmp_path)
    config = from_json(ray.suggest("a")["config"], TrainConfig)
    asked = ray.search.running["0000"].mixing_ratio
    assert asked in config.evaluation.release_ratios
    assert len(config.evaluation.release_ratios) == 4


def test_failures_are_told_and_an_interrupted_trial_is_left_for_a_resume(tmp_path: Path) -> None:
    ray = tuned(tmp_path, n_workers=3)
    for name in ("a", "b", "c"):
        ray.suggest(name)
    diverged = Failure(kind="diverged", reason="DivergedError: nan")
    last = {**LAST, "failure": diverged.kind, "reason": diverged.reason}
    assert not RungStopper(ray)("a", last)
    ray.on_trial_complete("a", last)
    dies(
        ray,
        "b",
        tmp_path,
        "Failure # 1",
        "Trace:",
        "OSError: für anderes",
        "Failure # 2",
        "ImportError: x",
    )
    ray.on_trial_complete("c", epoch(1))
    failures = ray.search.ledger.results.failures()
    assert failures["0000"] == diverged
    assert failures["0001"].kind == "worker-died"
    assert failures["0001"].reason.endswith("so did those that replaced it: ImportError: x")
    assert list(failures) == ["0000", "0001"]
    assert list(ray.search.running) == ["0002"]
    assert ray.search.ledger.results.cost()["forward_images"] == LAST["forward_images"]


def test_the_last_result_releases_its_points(tmp_path: Path) -> None:
    ray = tuned(tmp_path)
    ray.suggest("a")
    points = release(ray.search.running["0000"])
    last = {
        **epoch(16),
        **LAST,
        "n_accumulations": 1,
        "points": [point_to_dict(point) for point in points],
    }
    assert not RungStopper(ray)("a", last)
    ray.on_trial_complete("a", last)
    found = {
        (point.mixing_ratio, str(point.accuracies)) for point in ray.search.ledger.results.points()
    }
    assert found == {(point.mixing_ratio, str(point.accuracies)) for point in points}
    assert ray.search.ledger.results.cost()["seconds"] == 9.0


def test_what_the_stopper_stopped_is_not_told_again(tmp_path: Path) -> None:
    rungs = Rungs(SuccessiveHalving(eta=2))
    for i in range(3):
        rungs.report(f"other{i}", "global@1", [[0.99, 0.99]])
    ray = tuned(tmp_path, rungs=rungs)
    ray.suggest("a")
    weak = epoch(1, **{"accuracy/global/natural": 0.1, "accuracy/global/robust": 0.1})
    stopper = RungStopper(ray)
    assert stopper("a", weak)
    assert not stopper.stop_all()
    ray.on_trial_complete("a", weak)
    assert ray.search.ledger.results.counts().stopped_early == 1
    assert ray.search.ledger.results.counts().total == 1


def test_a_sweep_uses_machines_that_join_and_survives_that_they_leave(tmp_path: Path) -> None:
    n_fit = iter([1, 1, 2, 0])
    view = TuneSearcher(searcher(n_trials=9), tmp_path, lambda: next(n_fit))
    suggestions = [view.suggest(name) for name in "abcd"]
    assert [given is not None for given in suggestions] == [True, False, True, False]


def test_the_cause_of_a_death_is_one_line_of_moderate_length() -> None:
    assert cause_of("Failure # 1\n  File x\nModuleNotFoundError: No module\n\n") == (
        "ModuleNotFoundError: No module"
    )
    assert len(cause_of("The actor is dead. " * 100)) <= 300


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_module_that_workers_lack_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module of the model's function exists in this process only."""
    elsewhere = ModuleType("elsewhere")
    source = "from torch import nn\ndef build(n, shape):\n    return nn.Sequential(nn.Flatten(), "
    exec(source + "nn.Linear(16, n))", vars(elsewhere))
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)
    request = SweepConfig(base=tiny_config(), trials=1, limits=Limits(max_retries=0))
    found = sweep(request, tmp_path / "out", data=tiny_dataset(), model=elsewhere.build)
    (failure,) = found.results.failures().values()
    assert failure.reason.endswith("ModuleNotFoundError: No module named 'elsewhere'")
