"""Small real sweeps on a local Ray, or without where it has no part, and all they leave behind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict, replace_at
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.models.build import build_model
from generalist_core.training.averaging import load_weights
from generalist_core.training.evaluator import evaluate
from generalist_core.training.trainer import GeneralistTrainer
from search.api.sweep import resume, sweep
from search.config import Growing, Resources, StopWhenDone, SuccessiveHalving, SweepConfig
from search.errors import SweepFolderError
from search.files import read_json
from search.report.write import front_document
from search.running.mixtures import point_state
from search.scheduling.replay import replay
from search.study.folder import Sweep, open_sweep
from spaces import SPACES, Trial, tune_float
from tests.helpers.tiny import tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def sometimes_diverging(trial: Trial, base: TrainConfig) -> TrainConfig:
    """A space in which the optimizer RMSprop always diverges."""
    name = trial.suggest_categorical("experts.natural.optimizer", ["SGD", "RMSprop"])
    config = tune_float(trial, base, "mixing.decay", 0.5, 0.9)
    config = replace_at(config, "experts.natural.optimizer", name)
    lr = 1e38 if name == "RMSprop" else 0.05
    return replace_at(config, "experts.natural.optimizer.lr", lr)


def custom_request(seed: int) -> SweepConfig:
    """Six random trials to their ends, of a space that a test brings."""
    return SweepConfig(
        base=tiny_config(), space="own", trials=6, sampler="random", seed=seed, early_stopping=None
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Sweep:
    request = custom_request(seed=4)
    return sweep(request, tmp_path_factory.mktemp("sweep"), space=sometimes_diverging)


def test_every_trial_is_told_and_a_failing_one_does_not_stop_the_sweep(finished: Sweep) -> None:
    counts = finished.counts
    assert counts.total == 6
    assert counts.completed > 0
    assert counts.failed > 0
    assert {failure.kind for failure in finished.results.failures().values()} == {"diverged"}
    states = {trial.state for trial in finished.ledger.study.get_trials()}
    assert states == {TrialState.COMPLETE, TrialState.FAIL}


def test_every_release_point_is_an_observation(finished: Sweep) -> None:
    ratios = set(tiny_config().evaluation.release_ratios)
    points = finished.results.points()
    for trial in {point.trial for point in points}:
        assert ratios <= {point.mixing_ratio for point in points if point.trial == trial}


def test_the_weights_on_the_front_have_the_accuracies_that_it_claims(finished: Sweep) -> None:
    document = read_json(finished.folder / "front.json")
    assert finished.front.points
    for point, row in zip(finished.front.points, document["points"], strict=True):
        config = from_dict(row["config"], TrainConfig)
        data = load_dataset(config.data)
        model = build_model(config.model, data.n_classes, data.shape, seed=0).eval()
        state = point_state(finished.files, point.trial, point.mixing_ratio)
        load_weights(model, state)
        dtype = data.validation.images.dtype
        verdicts = evaluate(
            model, data.validation, config.evaluation, seed=config.seed, dtype=dtype
        )
        for objective in document["objectives"]:
            assert verdicts[objective].double().mean().item() == row[objective]


def test_the_report_can_be_read_and_made_again(finished: Sweep) -> None:
    document = read_json(finished.folder / "front.json")
    again = open_sweep(finished.folder)
    assert json.loads(json.dumps(front_document(again.folder, again.results))) == document
    assert again.config == finished.config
    rows = (finished.folder / "front.csv").read_text().splitlines()
    assert len(rows) == 1 + len(document["points"])
    assert (finished.folder / "front.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_shows_trials_and_the_sweep(finished: Sweep) -> None:
    def events(run: str) -> EventAccumulator:
        found = EventAccumulator(str(finished.folder / "tensorboard" / run))
        return found.Reload()

    def scalars(run: str) -> dict[str, list[float]]:
        tags = events(run).Tags()["scalars"]
        return {tag: [event.value for event in events(run).Scalars(tag)] for tag in tags}

    totals = scalars("sweep")
    assert len(totals["sweep/hypervolume"]) == 6
    assert totals["sweep/hypervolume"] == sorted(totals["sweep/hypervolume"])
    assert totals["sweep/hypervolume"][-1] == pytest.approx(finished.front.hypervolume)
    assert totals["sweep/trials/failed"][-1] == finished.counts.failed
    trial = finished.front.points[0].trial
    assert events(trial).Scalars("loss/robust")[-1].step == tiny_config().epochs
    assert {"accuracy/global/natural", "lr/natural", "weight/robust"} <= set(scalars(trial))


def test_a_folder_that_holds_a_sweep_is_not_overwritten(finished: Sweep) -> None:
    before = (finished.folder / "study.journal").read_bytes()
    with pytest.raises(SweepFolderError, match="new or empty"):
        sweep(finished.config, finished.folder, space=sometimes_diverging)
    assert (finished.folder / "study.journal").read_bytes() == before


def test_custom_data_and_a_custom_model_reach_the_workers(tmp_path: Path) -> None:
    digits = load_dataset(tiny_config().data)
    custom = Dataset(name="custom", train=digits.train, validation=digits.validation)

    def custom_model(n_classes: int, shape: tuple[int, int, int]) -> object:
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], n_classes))

    request = SweepConfig(base=tiny_config(), space="smoke", trials=1)
    result = sweep(request, tmp_path, data=custom, model=custom_model)  # type: ignore[arg-type]
    assert result.counts.completed == 1
    point = result.front.points[0]
    weights = point_state(result.files, point.trial, point.mixing_ratio)
    assert set(weights) == {"1.weight", "1.bias"}


def test_a_trial_on_ray_is_the_same_as_one_without(finished: Sweep) -> None:
    row = read_json(finished.folder / "front.json")["points"][0]
    config = from_dict(row["config"], TrainConfig)
    trainer = GeneralistTrainer(
        dataclasses.replace(config, device="cpu"), load_dataset(config.data)
    )
    while not trainer.is_done:
        trainer.train_epoch()
    (point,) = trainer.release([row["mixing_ratio"]])
    assert point.accuracies == {name: row[name] for name in ("natural", "robust")}


def test_a_time_budget_ends_the_sweep_and_leaves_its_trials_for_a_resume(tmp_path: Path) -> None:
    slow = dataclasses.replace(tiny_config(), epochs=2000)
    request = SweepConfig(base=slow, space="smoke", trials=3, time_budget_s=6)
    result = sweep(request, tmp_path)
    assert (result.counts.total, result.counts.unfinished > 0) == (0, True)
    assert not result.ledger.study.get_trials(states=[TrialState.RUNNING])


def test_weak_trials_are_stopped_and_told_as_pruned(tmp_path: Path) -> None:
    config = replace_at(dataclasses.replace(tiny_config(), epochs=6), "evaluation.every_epochs", 1)
    request = SweepConfig(
        base=config,
        space="smoke",
        trials=8,
        sampler="random",
        seed=3,
        round_size=2,
        early_stopping=SuccessiveHalving(eta=2, first_rung=2, growth=1.5),
    )
    found = sweep(request, tmp_path)
    assert found.counts.total == found.counts.completed + found.counts.stopped_early == 8
    assert found.counts.stopped_early > 0
    pruned = found.ledger.study.get_trials(states=[TrialState.PRUNED])
    assert len(pruned) == found.counts.stopped_early
    for trial in pruned:
        assert 0 < trial.user_attrs["stopped_at"] < 6
        assert trial.user_attrs["cost"]["forward_images"] > 0


def test_a_sweep_ends_when_its_front_has_stopped_growing(tmp_path: Path) -> None:
    rule = StopWhenDone(min_growth=0.99, within_cost=1)
    request = SweepConfig(
        base=tiny_config(),
        space="smoke",
        trials=20,
        stop_when=rule,
        early_stopping=None,
        resources=Resources(local=True),
    )
    found = sweep(request, tmp_path)
    assert 2 <= found.counts.total < 20
    assert found.counts.failed == 0


def test_shared_warm_ups_change_the_cost_and_nothing_else(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config(), epochs=4)
    found = {}
    for shares in (True, False):
        request = SweepConfig(
            base=config,
            space="mixing",
            trials=4,
            shares_warmups=shares,
            resources=Resources(local=True),
            seed=2,
            early_stopping=None,
        )
        found[shares] = sweep(request, tmp_path / str(shares))
    shared, alone = found[True].results, found[False].results
    points, expected = (
        [(point.name, point.accuracies) for point in results.points()]
        for results in (shared, alone)
    )
    assert points
    assert points == expected
    assert shared.cost()["reused_forward_images"] > 0 == alone.cost()["reused_forward_images"]
    assert shared.cost()["forward_images"] < alone.cost()["forward_images"]


def test_lineages_grow_on_ray_until_the_budget_is_spent(tmp_path: Path) -> None:
    """The second stage costs no less than the budget leaves, whichever lineage comes there."""
    growing = Growing(n_first=2, first_cost=9, second_cost=18, eta=2)
    request = SweepConfig(
        base=tiny_config(), space="lineages", trials=None, budget=1.2e5, growing=growing
    )
    found = sweep(request, tmp_path)
    cost = [trial.user_attrs["cost"]["forward_images"] for trial in found.results.ended()]
    assert sum(cost) >= request.budget
    assert found.counts.completed == found.counts.total > 2
    starts = [proposal.config.sync.start_epoch for proposal in found.results.proposals()]
    assert max(starts[2:]) > 1
    assert found.results.cost()["reused_forward_images"] > 0
    assert replay(found, SPACES["lineages"]) == []


def test_a_space_that_refuses_its_own_suggestions_costs_those_trials_only(tmp_path: Path) -> None:
    def sometimes_invalid(trial: Trial, base: TrainConfig) -> TrainConfig:
        start = trial.suggest_int("sync.start_epoch", 1, base.epochs + 3)
        return replace_at(base, "sync.start_epoch", start)

    request = dataclasses.replace(custom_request(seed=1), resources=Resources(local=True))
    found = sweep(request, tmp_path, space=sometimes_invalid)
    assert found.counts.total == 6
    assert found.counts.completed > 0
    failures = found.results.failures().values()
    assert {failure.kind for failure in failures} == {"invalid"}
    assert all("sync.start_epoch < epochs" in failure.reason for failure in failures)


def test_a_small_space_ends_a_sweep_of_more_trials_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On two workers of Ray, one of which has nothing to do at the end; a resume adds nothing."""

    def small(trial: Trial, base: TrainConfig) -> TrainConfig:
        return replace_at(base, "sync.every_epochs", trial.suggest_int("sync.every_epochs", 1, 3))

    request = dataclasses.replace(custom_request(seed=1), resources=Resources(workers=2))
    found = sweep(request, tmp_path, space=small)
    assert sorted(p.config.sync.every_epochs for p in found.results.proposals()) == [1, 2, 3]
    assert found.counts.completed == 3
    assert (
        "The sweep ends, as all 3 configurations of the space were tried" in capfd.readouterr().err
    )
    assert open_sweep(tmp_path).ledger.has_ended
    assert resume(tmp_path, space=small).counts.completed == 3
    assert replay(found, small) == []
