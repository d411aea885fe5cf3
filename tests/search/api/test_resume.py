"""What `resume` refuses, before any work and before Ray starts; and sweeps that it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from torch import Tensor, nn

from generalist_core.config import DataConfig, ModelConfig
from generalist_core.config.presets import short
from generalist_core.training.cost import update_cost
from generalist_core.validation import InvalidConfigError
from search.api.explain import explain
from search.api.sweep import CHANGEABLE, resume, sweep
from search.api.train import train
from search.config import (
    CustomParts,
    Floor,
    Growing,
    Limits,
    Population,
    Resources,
    SuccessiveHalving,
    SweepConfig,
)
from search.errors import SweepFolderError, SweepInterruptedError
from search.folders import SweepFolder
from search.lease import leased
from search.scheduling.replay import replay
from search.study.folder import Sweep, open_sweep, read_request
from spaces import SPACES
from tests.helpers.problems import tiny_dataset, write_image_folder
from tests.helpers.small_sweep import small_sweep
from tests.helpers.tiny import tiny_config

DATA = tiny_dataset()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two trials on the tests' own images, as it was left."""
    return small_sweep(tmp_path_factory.mktemp("done") / "out", tiny_config(), DATA).folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "out"))


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


CHANGES: dict[str, Any] = {
    "base": replace(tiny_config(), epochs=3),
    "space": "mixing",
    "sampler": "tpe",
    "seed": 1,
    "repeats": 1,
    "storage": "sqlite:///other.db",
    "at_least": (Floor(objective="natural", accuracy=0.5),),
    "warm_start": ("elsewhere.csv",),
    "shares_warmups": False,
    "growing": Growing(eta=2),
    "population": Population(),
    "early_stopping": SuccessiveHalving(eta=2),
    "round_size": 2,
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_settings_are_refused(name: str, folder: Path) -> None:
    before, old = content(folder), open_sweep(folder).config
    with pytest.raises(InvalidConfigError, match=rf"other than trials, .*, but {name} changed"):
        resume(folder, replace(old, **{name: CHANGES[name]}), data=DATA)
    assert content(folder) == before


def test_all_settings_are_either_changeable_or_tried_here() -> None:
    fields = set(SweepConfig.__dataclass_fields__)
    assert fields == {*CHANGEABLE, *CHANGES, "warmups"}


def test_a_sweep_that_another_process_runs_is_left_alone(folder: Path) -> None:
    before = content(folder)
    with (
        leased(SweepFolder(folder).lease, waits=False),
        pytest.raises(SweepFolderError, match="one process at a time, but another runs it"),
    ):
        resume(folder, data=DATA)
    assert content(folder) == before


def test_a_sweep_whose_lease_is_lost_records_no_more(folder: Path) -> None:
    """Another process takes it over while the first trial of this one is trained."""
    files = SweepFolder(folder)

    class Taken(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            if self.training and len(images) > 2:  # what the rehearsal does not see
                files.lease.unlink(missing_ok=True)
            return super().forward(images.flatten(1))

    def change(document: Any) -> None:
        document["request"] |= {"trials": 3, "shares_warmups": False, "early_stopping": None}
        document["custom"]["model"] = True

    with_request(folder, change)
    request = replace(read_request(folder), resources=Resources(local=True))
    report = files.report.read_bytes()
    with pytest.raises(SweepInterruptedError, match="has recorded nothing since"):
        resume(folder, request, data=DATA, model=lambda n_classes, _: Taken(16, n_classes))
    assert open_sweep(folder).counts.total == 2
    assert files.report.read_bytes() == report
    assert not (files.trial("0002").points).exists()


def with_request(folder: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(SweepFolder(folder).request.read_text())
    change(document)
    SweepFolder(folder).request.write_text(json.dumps(document))


def one_trial_of_files(tmp_path: Path) -> Path:
    """A sweep of one trial on a folder of images."""
    write_image_folder(tmp_path / "images")
    data = DataConfig(name=str(tmp_path / "images"), image_size=8, n_validation=4)
    config = short(data=data, model=ModelConfig(width=2), epochs=2)
    request = SweepConfig(base=config, space="smoke", trials=1, resources=Resources(local=True))
    return sweep(request, tmp_path / "out").folder


def test_a_sweep_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    folder = one_trial_of_files(tmp_path)
    shutil.copy(tmp_path / "images/train/b/0.png", tmp_path / "images/train/a/0.png")
    before, config = content(folder), open_sweep(folder).config
    with pytest.raises(InvalidConfigError, match="must be those of the sweep, whose digest is"):
        resume(folder, replace(config, trials=2))
    assert content(folder) == before
    write_image_folder(tmp_path / "images")
    assert resume(folder, replace(config, trials=2)).counts.completed == 2


def test_a_space_whose_file_has_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from spaces import smoke as mine\n")

    def change(document: Any) -> None:
        document["request"]["space"] = f"{file}:mine"
        document["pins"] = {"space": "0" * 64}

    with_request(folder, change)
    before = content(folder)
    with pytest.raises(InvalidConfigError, match=r"mine\.py:mine` must be as it was"):
        resume(folder, data=DATA)
    assert content(folder) == before


def test_a_model_whose_file_has_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("def net(n_classes, shape): ...\n")
    model = {"name": f"{file}:net", "digest": "0" * 64}
    with_request(folder, lambda document: document["request"]["base"]["model"].update(model))
    before = content(folder)
    with pytest.raises(InvalidConfigError, match=r"net\.py:net` must be as it was"):
        resume(folder, data=DATA)
    assert content(folder) == before


def test_channels_last_that_a_sweep_goes_on_without_stays_off(folder: Path) -> None:
    asked = read_request(folder)
    assert asked.base.channels_last
    file = SweepFolder(folder).request
    stored = json.loads(file.read_text())
    stored["request"]["base"]["channels_last"] = False
    file.write_text(json.dumps(stored))
    assert not resume(folder, asked, data=DATA).config.base.channels_last


@pytest.mark.slow
def test_a_sweep_that_failures_ended_continues_under_other_limits(tmp_path: Path) -> None:
    """All of its trials fail at first; then the model is mended."""

    def broken(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, n_classes))
        if not (tmp_path / "mended").exists():
            model.register_forward_pre_hook(fail)
        return model

    def fail(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if module.training and len(inputs[0]) > 2:  # what the rehearsal does not see
            raise ValueError("planted")

    request = SweepConfig(
        base=tiny_config(),
        space="smoke",
        trials=4,
        early_stopping=None,
        limits=Limits(max_failures=2),
        resources=Resources(local=True),
    )
    folder = tmp_path / "out"
    with pytest.raises(RuntimeError, match="2 trials failed, as many as"):
        sweep(request, folder, data=DATA, model=broken)
    found = open_sweep(folder)
    assert found.results.failure_kinds() == {"error": 2}
    assert not found.ledger.study.get_trials(states=[TrialState.RUNNING])
    (tmp_path / "mended").touch()
    again = resume(folder, replace(request, limits=Limits()), data=DATA, model=broken)
    assert again.counts.total == 4
    assert (again.counts.failed, again.counts.completed) == (2, 2)
    assert replay(open_sweep(folder), SPACES["smoke"]) == []


def test_lineages_grow_on_what_was_trained(tmp_path: Path) -> None:
    """Of three lineages the best one grows: its next stage reuses the one before."""
    request = SweepConfig(
        base=tiny_config(),
        space="branches",
        trials=4,
        growing=Growing(n_first=3, first_cost=9, second_cost=18, eta=3),
        resources=Resources(local=True),
    )
    found = sweep(request, tmp_path / "out", data=DATA)
    assert found.counts.completed == 4
    configs = [proposal.config for proposal in found.results.proposals()]
    robust = [config.experts[1] for config in configs]
    starts = [config.sync.start_epoch for config in configs]
    steps = [expert.attack for expert in robust]
    grown = steps[:3].index(steps[3])
    assert starts[3] > starts[grown]
    cost = found.results.asked()[3].user_attrs["cost"]
    assert cost["reused_forward_images"] == 16 * starts[grown] * update_cost(robust[grown])
    assert replay(replace(found, custom=CustomParts(data=DATA)), SPACES["branches"]) == []


@pytest.mark.parametrize("n_members", [2, 3])
def test_members_of_a_population_go_on_from_what_was_trained(
    tmp_path: Path, n_members: int
) -> None:
    """A training of what a step was configured to be, from its beginning, gives the same points.

    `resume` goes on with the same members.
    """
    request = SweepConfig(
        base=tiny_config(),
        trials=3 * n_members,
        population=Population(n_members=n_members, step_cost=9, replaced=0.5),
        resources=Resources(local=True),
    )
    sweep(replace(request, trials=n_members + 1), tmp_path / "out", data=DATA)
    found = resume(tmp_path / "out", request, data=DATA)
    whole = sweep(request, tmp_path / "whole", data=DATA)
    assert found.front == whole.front
    assert replay(replace(found, custom=CustomParts(data=DATA)), SPACES["lineages"]) == []
    proposals = found.results.proposals()
    assert [p.member for p in proposals[: n_members + 1]] == [*range(n_members), 0]
    taken = [p for p in proposals if p.config.experts[1].earlier]
    assert taken
    assert found.results.cost()["reused_forward_images"] > 0
    last = taken[-1]
    alone = train(last.config, tmp_path / "alone", data=DATA)
    points = {p.mixing_ratio: p.accuracies for p in alone.points}
    for point in found.results.points():
        if point.trial == last.trial and point.mixing_ratio in points:
            assert point.accuracies == points[point.mixing_ratio]
    story = explain(found, last.trial)
    assert f"A step of member {last.member} of the population." in story
    assert ", with other settings." in story


def trial_costs(found: Sweep) -> list[float]:
    asked = found.results.asked()
    return [trial.user_attrs["cost"]["forward_images"] for trial in asked]


@pytest.mark.parametrize("end", [{"trials": 2}, {"trials": None, "budget": 1.0}], ids=str)
def test_a_sweep_that_is_over_is_reported_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: dict[str, Any]
) -> None:
    request = SweepConfig(base=tiny_config(), space="smoke", resources=Resources(local=True), **end)
    folder = sweep(request, tmp_path / "out", data=DATA).folder
    (folder / "report.html").unlink()
    begun: list[Resources] = []
    monkeypatch.setattr("search.running.ray_cluster.running_ray", begun.append)
    resume(folder, replace(request, resources=Resources()), data=DATA)
    assert not begun
    assert (folder / "report.html").is_file()


def test_a_budget_ends_a_sweep_and_a_larger_one_continues_it(tmp_path: Path) -> None:
    request = SweepConfig(
        base=tiny_config(), space="smoke", trials=3, resources=Resources(local=True)
    )
    costs = trial_costs(sweep(request, tmp_path / "all", data=DATA))
    spent = costs[0] + costs[1]
    for name, budget, n_trials in (("1", spent - 1, 2), ("2", spent, 2), ("3", spent + 1, 3)):
        limited = replace(request, trials=None, budget=budget)
        found = sweep(limited, tmp_path / name, data=DATA)
        assert trial_costs(found) == costs[:n_trials]
    more = replace(limited, budget=sum(costs))
    for name in ("1", "2"):
        found = resume(tmp_path / name, more, data=DATA)
        assert trial_costs(found) == costs
        again = resume(tmp_path / name, more, data=DATA)
        assert trial_costs(again) == costs
