"""Law 7, as far as one process goes: what was asked is in the study once, in a final state."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict, replace_at
from generalist_core.config.mixing import GLOBAL
from generalist_core.config.presets import short
from search.config import SAMPLERS
from search.errors import SweepInterruptedError
from search.study.records import Observation, RejectedError
from search.study.storage import open_storage
from spaces import SPACES, Trial, paper_suggestion, tune_choice, tune_int
from tests.helpers.ledgers import COST, LOW, PLANTED, new_ledger, release


def test_every_released_mixture_is_an_observation_with_its_own_ratio() -> None:
    ledger = new_ledger()
    proposal = ledger.ask(SPACES["mixing"], short())
    points = release(proposal)
    ledger.tell_released(proposal.trial, points, COST)
    trials = ledger.study.get_trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * len(points)
    for trial in trials:
        ratio = trial.params["release_ratio.1"]
        assert trial.values == [pytest.approx(1 - 0.1 * ratio), 0.5]
        assert {k: v for k, v in trial.params.items() if k != "release_ratio.1"} == {
            k: v for k, v in trials[0].params.items() if k != "release_ratio.1"
        }
    found = {(p.trial, p.mixing_ratio): p.accuracies for p in ledger.results.points()}
    assert found == {(proposal.trial, p.mixing_ratio): p.accuracies for p in points}


def test_the_global_learner_is_a_point_and_no_observation() -> None:
    """The sampler's study, its suggestions and a warm start are those of a ledger without it."""
    ledger, plain = new_ledger("tpe"), new_ledger("tpe")
    learners = {}
    for _ in range(12):
        proposal = ledger.ask(SPACES["mixing"], short())
        assert plain.ask(SPACES["mixing"], short()) == proposal
        points = release(proposal)
        learners[proposal.trial] = dataclasses.replace(
            points[0], mixing_ratio=GLOBAL, accuracies={"natural": 0.9, "robust": 0.6}
        )
        ledger.tell_released(proposal.trial, [*points, learners[proposal.trial]], COST)
        plain.tell_released(proposal.trial, points, COST)
    assert ledger.results.observations("a") == plain.results.observations("a")
    found = {p.trial: p for p in ledger.results.points() if p.is_global}
    assert {name: p.accuracies for name, p in found.items()} == {
        name: p.accuracies for name, p in learners.items()
    }
    assert "0000-global" in [point.name for point in ledger.results.front().points]
    volumes = (ledger.results.history()[-1], ledger.results.front())
    assert volumes[0].hypervolume == volumes[1].hypervolume
    assert volumes[1].hypervolume > plain.results.front().hypervolume
    ledger.resume()
    assert {p.trial: p for p in ledger.results.points() if p.is_global} == found
    assert [p for p in ledger.results.points() if not p.is_global] == plain.results.points()


def test_a_mixture_that_is_as_good_as_the_global_learner_is_kept_on_the_front() -> None:
    ledger = new_ledger()
    proposal = ledger.ask(SPACES["mixing"], short())
    points = release(proposal)
    learner = dataclasses.replace(points[0], mixing_ratio=GLOBAL)
    ledger.tell_released(proposal.trial, [learner, *points], COST)
    assert [point.is_global for point in ledger.results.front().points] == [False]


def test_trials_end_once_and_are_counted_without_siblings() -> None:
    ledger = new_ledger()
    done, failed, left = (ledger.ask(SPACES["smoke"], short()) for _ in range(3))
    ledger.tell_released(done.trial, release(done), COST)
    ledger.tell_failed(failed.trial, PLANTED)
    ledger.tell_stopped(left.trial, 1, {}, {"natural": 0.5, "robust": 0.25})
    counts = ledger.results.counts()
    assert (counts.completed, counts.stopped_early, counts.failed) == (1, 1, 1)
    assert ledger.results.failures() == {failed.trial: PLANTED}
    assert ledger.results.failure_kinds() == {"error": 1}
    assert ledger.results.cost() == COST
    assert not ledger.study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])


def test_a_reopened_ledger_continues_where_it_was(tmp_path: Path) -> None:
    def journal() -> JournalStorage:
        return JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))

    first = new_ledger(storage=journal())
    proposal = first.ask(SPACES["smoke"], short())
    first.tell_released(proposal.trial, release(proposal), COST)
    again = new_ledger(storage=journal(), is_new=False)
    assert again.results.points() == first.results.points()
    assert again.ask(SPACES["smoke"], short()).trial == "0001"


def test_what_is_asked_is_in_the_study_before_it_runs(tmp_path: Path) -> None:
    def journal() -> JournalStorage:
        return JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))

    first = new_ledger(storage=journal())
    proposal = first.ask(SPACES["mixing"], short())
    seen = new_ledger(storage=journal(), is_new=False)
    (trial,) = seen.study.get_trials()
    assert trial.state == TrialState.RUNNING
    assert trial.params == proposal.params
    assert trial.user_attrs["trial"] == proposal.trial
    assert from_dict(trial.user_attrs["config"], TrainConfig) == proposal.config
    assert trial.user_attrs["mixing_ratio"] == proposal.mixing_ratio
    assert seen.resume() == [proposal]


def test_a_suggestion_that_the_space_refuses_is_in_the_study_as_failed() -> None:
    def refusing(trial: Trial, base: TrainConfig) -> TrainConfig:
        return tune_int(trial, base, "sync.start_epoch", 99, 99)

    ledger = new_ledger()
    with pytest.raises(RejectedError, match=r"`sync\.start_epoch < epochs`") as error:
        ledger.ask(refusing, short())
    assert list(ledger.results.failures()) == [error.value.trial] == ["0000"]
    assert ledger.ask(SPACES["smoke"], short()).trial == "0001"


def choices_depend(trial: Trial, base: TrainConfig) -> TrainConfig:
    """A space that Optuna refuses, as soon as the second list of choices is asked for."""
    kind = trial.suggest_categorical("experts.natural.optimizer", ["SGD", "AdamW"])
    rates = [0.1, 0.2] if kind == "SGD" else [0.01, 0.2]
    config = tune_choice(trial, base, "experts.natural.optimizer.lr", rates)
    return replace_at(config, "sync.start_epoch", 1)


@pytest.mark.parametrize("url", [None, "sqlite:///{}/study.db"])
def test_choices_that_depend_are_refused_alike_after_each_reopening(
    url: str | None, tmp_path: Path
) -> None:
    storage, journal = url and url.format(tmp_path), tmp_path / "study.journal"
    ledger = new_ledger(storage=open_storage(storage, journal))
    for number in range(10):
        if number % 2:
            ledger = new_ledger(storage=open_storage(storage, journal), is_new=False)
            ledger.resume()
        with contextlib.suppress(RejectedError):
            ledger.ask(choices_depend, short())
    assert ledger.results.n_asked == 10
    reasons = [failure.reason for failure in ledger.results.failures().values()]
    assert 0 < len(reasons) < 10
    assert all("does not support dynamic value space" in reason for reason in reasons)
    path = "experts.natural.optimizer.lr"
    asked = [trial for trial in ledger.results.asked() if path in trial.params]
    assert len({str(trial.distributions[path]) for trial in asked}) == 1


@pytest.mark.parametrize(
    "error", [ValueError("not wanted"), optuna.TrialPruned("not wanted"), OSError("not wanted")]
)
def test_a_space_that_raises_makes_a_failed_trial_and_the_next_is_another(error: Exception) -> None:
    def raising(trial: Trial, base: TrainConfig) -> TrainConfig:
        trial.suggest_float("x", 0, 1)
        raise error

    ledger = new_ledger()
    for number in range(2):
        with pytest.raises(RejectedError, match=r"not wanted \(test_ledger\.py") as rejected:
            ledger.ask(raising, short())
        assert rejected.value.trial == f"000{number}"
    assert ledger.results.failure_kinds() == {"invalid": 2}
    assert len({trial.params["x"] for trial in ledger.results.asked()}) == 2


def test_a_stopped_trial_says_when_and_how_good_it_was() -> None:
    ledger = new_ledger("tpe")
    proposal = ledger.ask(SPACES["smoke"], short())
    ledger.tell_stopped(proposal.trial, 3, COST, {"natural": 0.5, "robust": 0.25})
    (trial,) = ledger.study.get_trials()
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["stopped_at"] == 3
    assert trial.user_attrs["accuracies"] == {"natural": 0.5, "robust": 0.25}
    assert trial.user_attrs["cost"] == COST == ledger.results.cost()
    assert ledger.results.counts().stopped_early == 1
    assert ledger.results.points() == []


def test_siblings_do_not_repeat_the_configuration_and_points_have_it() -> None:
    ledger = new_ledger()
    proposal = ledger.ask(SPACES["mixing"], short())
    ledger.tell_released(proposal.trial, release(proposal), COST)
    own, *siblings = ledger.study.get_trials()
    assert len(siblings) > 1
    assert "config" in own.user_attrs
    assert not any("config" in trial.user_attrs for trial in siblings)
    configs = [from_dict(point.config, TrainConfig) for point in ledger.results.points()]
    assert configs == [proposal.config] * len(ledger.results.points())


def test_the_enqueued_suggestion_comes_first() -> None:
    ledger, base = new_ledger(), short()
    params, ratio = paper_suggestion(SPACES["mixing"], base)
    ledger.enqueue(params, ratio, 2)
    proposal = ledger.ask(SPACES["mixing"], base)
    assert proposal.mixing_ratio == ratio == 0.4
    assert proposal.config.mixing.ratio.values == (1.0, 1.0, 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_with_conditional_parameters_and_siblings(sampler: str) -> None:
    ledger = new_ledger(sampler)
    for n in range(5):
        proposal = ledger.ask(SPACES["full"], short())
        if n == 2:
            ledger.tell_failed(proposal.trial, PLANTED)
        else:
            ledger.tell_released(proposal.trial, release(proposal), COST)
    assert ledger.results.counts().completed == 4
    assert len(ledger.results.points()) >= 4 * len(short().evaluation.release_ratios)


def test_nothing_is_written_without_the_guard() -> None:
    ledger = new_ledger()
    asked = ledger.ask(SPACES["smoke"], short())
    seen = Observation(params=asked.params, accuracies=LOW, origin="elsewhere")
    before = ledger.study.get_trials()

    def refuse() -> None:
        raise SweepInterruptedError("planted")

    ledger.guard = refuse
    for write in (
        lambda: ledger.ask(SPACES["smoke"], short()),
        lambda: ledger.tell_released(asked.trial, release(asked), COST),
        lambda: ledger.tell_stopped(asked.trial, 1, COST, LOW),
        lambda: ledger.tell_failed(asked.trial, PLANTED),
        lambda: ledger.pause(asked.trial),
        lambda: ledger.observe(seen, SPACES["smoke"], short()),
        ledger.resume,
    ):
        with pytest.raises(SweepInterruptedError, match="planted"):
            write()
        assert ledger.study.get_trials() == before
