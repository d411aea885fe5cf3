"""Law 7, as far as one process goes: what was asked is in the study once, in a final state."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict
from generalist_core.config.presets import short
from search.config import SAMPLERS
from search.study.records import RejectedError
from spaces import SPACES, Trial, paper_suggestion, tune_int
from tests.helpers.ledgers import COST, PLANTED, new_ledger, release


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
