"""Law 7, as far as one process goes: what was asked is in the study once, in a final state."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from generalist_core.config import Ratio, as_weights
from generalist_core.evaluation import OperatingPoint
from generalist_core.presets import short
from search.ledger import Ledger, Proposal
from search.release_ratio import ratio_params, suggest_ratio
from search.samplers import SAMPLERS, build_sampler
from search.trial import with_release_ratio
from spaces import SPACES, paper_suggestion

OBJECTIVES = ("natural", "robust")
COST = {"forward_images": 10, "reused_forward_images": 4, "seconds": 1.5}


def new_ledger(sampler: str = "random", storage: object = None, *, is_new: bool = True) -> Ledger:
    built = build_sampler(sampler, seed=0, n_startup=8)
    return Ledger(storage or InMemoryStorage(), OBJECTIVES, sampler=built, is_new=is_new)  # type: ignore[arg-type]


def release(proposal: Proposal) -> list[OperatingPoint]:
    """Operating points on a known curve."""
    config = with_release_ratio(proposal.config, proposal.ratio)
    return [
        OperatingPoint(
            ratio=ratio,
            accuracies={"natural": 1 - 0.1 * as_weights(ratio, 2)[1], "robust": 0.5},
            n_images=100,
        )
        for ratio in config.evaluation.release_ratios
    ]


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
    found = {(p.trial, p.mixing_ratio): p.accuracies for p in ledger.points()}
    assert found == {(proposal.trial, p.ratio): p.accuracies for p in points}


def test_trials_end_once_and_are_counted_without_siblings() -> None:
    ledger = new_ledger()
    done, failed, left = (ledger.ask(SPACES["smoke"], short()) for _ in range(3))
    ledger.tell_released(done.trial, release(done), COST)
    ledger.tell_failed(failed.trial, "DivergedError: nan")
    assert ledger.close_unfinished("interrupted") == [left.trial]
    assert ledger.close_unfinished("interrupted") == []
    counts = ledger.counts()
    assert (counts.completed, counts.stopped_early, counts.failed) == (1, 0, 2)
    assert ledger.failures() == {failed.trial: "DivergedError: nan", left.trial: "interrupted"}
    assert ledger.cost() == COST
    assert not ledger.study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])


def test_a_reopened_ledger_goes_on_where_it_was(tmp_path: Path) -> None:
    def journal() -> JournalStorage:
        return JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))

    first = new_ledger(storage=journal())
    proposal = first.ask(SPACES["smoke"], short())
    first.tell_released(proposal.trial, release(proposal), COST)
    again = new_ledger(storage=journal(), is_new=False)
    assert again.points() == first.points()
    assert again.ask(SPACES["smoke"], short()).trial == "0001"


def test_the_enqueued_suggestion_comes_first() -> None:
    ledger, base = new_ledger(), short()
    params, ratio = paper_suggestion(SPACES["mixing"], base)
    ledger.enqueue(params, ratio, 2)
    proposal = ledger.ask(SPACES["mixing"], base)
    assert proposal.ratio == ratio == 0.4
    assert proposal.config.mixing.ratio.values == (1.0, 1.0, 0.4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_with_conditional_parameters_and_siblings(sampler: str) -> None:
    ledger = new_ledger(sampler)
    for n in range(5):
        proposal = ledger.ask(SPACES["full"], short())
        if n == 2:
            ledger.tell_failed(proposal.trial, "planted")
        else:
            ledger.tell_released(proposal.trial, release(proposal), COST)
    assert ledger.counts().completed == 4
    assert len(ledger.points()) >= 4 * len(short().evaluation.release_ratios)


@pytest.mark.parametrize(
    ("ratio", "n_experts"),
    [(0.0, 2), (0.3, 2), (1.0, 2), ((0.2, 0.5, 0.3), 3), ((0.0, 0.0, 1.0), 3), ((1.0, 0, 0, 0), 4)],
)
def test_breaking_the_stick_is_the_inverse_of_its_parameters(ratio: Ratio, n_experts: int) -> None:
    trial = optuna.trial.FixedTrial(ratio_params(ratio, n_experts))
    found = suggest_ratio(trial, n_experts)  # type: ignore[arg-type]
    assert as_weights(found, n_experts) == pytest.approx(as_weights(ratio, n_experts))
