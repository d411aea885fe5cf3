"""The search itself: what is counted, when it is full, and what ends it."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState

from benchmarks.simulated_loop import run_here
from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.validation import InvalidConfigError
from search.config import StopWhenDone, SuccessiveHalving
from search.errors import WorkerError
from search.running.trial import Training, cached_dataset
from search.scheduling.early_stopping import Rungs
from search.scheduling.proposer import SamplingProposer
from search.scheduling.searcher import Searcher
from search.study.failures import Failure
from search.study.records import Proposal
from spaces import SPACES, Trial
from tests.helpers.ledgers import new_ledger, release
from tests.helpers.searches import LAST, Noting, epoch, proposed, searcher
from tests.helpers.tiny import tiny_config


def sometimes_refusing(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Refuses its first suggestion, which is 99, and no other that is made in this file."""
    epoch = trial.suggest_int("sync.start_epoch", 1, 99)
    return replace_at(base, "sync.start_epoch", epoch if epoch == 99 else 8)


def told(searching: Searcher) -> list[tuple[str, Any]]:
    assert isinstance(searching.callback, Noting)
    return searching.callback.told


PLANTED = Failure(kind="worker-died", reason="planted")


def test_a_search_is_full_while_all_workers_have_a_trial() -> None:
    searching = searcher(n_workers=2)
    first, second = proposed(searching), proposed(searching)
    assert searching.is_full
    searching.failed(first.trial, PLANTED)
    assert not searching.is_full
    assert list(searching.running) == [second.trial]


def test_after_its_trials_a_search_proposes_no_more() -> None:
    searching = searcher(2)
    assert [searching.propose() is None for _ in range(4)] == [False, False, True, True]


def test_a_refused_suggestion_is_told_as_failed_and_counts() -> None:
    searching = searcher(2, sometimes_refusing)
    searching.ledger.enqueue({"sync.start_epoch": 99}, 0.5, 2)
    assert proposed(searching).trial == "0001"
    assert told(searching) == [("failed", "0000"), ("begun", "0001")]
    assert searching.propose() is None
    assert searching.ledger.results.counts().failed == 1


@pytest.mark.parametrize("gpus", [0.0, 0.5])
def test_seconds_add_up_until_a_total_is_given(gpus: float) -> None:
    searching = searcher(gpus_per_trial=gpus)
    failing, whole = proposed(searching), proposed(searching)
    for number in (1, 2):
        assert not searching.report(failing.trial, epoch(number, 10 * number))
        assert not searching.report(whole.trial, epoch(number, 10 * number))
    searching.failed(failing.trial, PLANTED)
    searching.released(whole.trial, release(whole), LAST)
    expected = {
        "forward_images": 50,
        "reused_forward_images": 8,
        "seconds": 4 + 9,
        "lost_forward_images": 0,
    }
    assert searching.ledger.results.cost() == {**expected, "gpu_seconds": gpus * 13}


def test_a_trial_that_fails_before_its_first_epoch_costs_nothing() -> None:
    searching = searcher()
    searching.failed(proposed(searching).trial, PLANTED)
    assert set(searching.ledger.results.cost().values()) == {0}


def test_what_happens_to_a_trial_is_told_once_and_in_order() -> None:
    searching = searcher(n_workers=2)
    first, second = proposed(searching), proposed(searching)
    searching.report(first.trial, epoch(1))
    searching.released(first.trial, release(first), LAST)
    searching.failed(second.trial, PLANTED)
    assert told(searching) == [
        ("begun", first.trial),
        ("begun", second.trial),
        ("metrics", first.trial),
        ("completed", first.trial),
        ("failed", second.trial),
    ]


def test_a_weak_trial_is_stopped_at_its_rung() -> None:
    searching = searcher(rungs=Rungs(SuccessiveHalving(eta=2)))
    stops = {}
    for accuracy in (0.9, 0.8, 0.95):
        trial = proposed(searching).trial
        judged = {"accuracy/global/natural": accuracy, "accuracy/global/robust": accuracy}
        assert not searching.report(trial, epoch(1))
        stops[accuracy] = searching.report(trial, epoch(2, **judged))
    assert stops == {0.9: False, 0.8: True, 0.95: False}
    assert ("stopped after 2", "0001") in told(searching)
    assert list(searching.running) == ["0000", "0002"]
    assert searching.ledger.results.counts().stopped_early == 1
    assert searching.ledger.results.cost()["seconds"] == 4.0


def test_closing_leaves_what_runs_for_another_time_and_says_so() -> None:
    searching = searcher(2)
    first = proposed(searching)
    assert searching.close()
    assert searching.ledger.results.counts().unfinished == 1
    assert [proposal.trial for proposal in searching.ledger.resume()] == [first.trial]
    whole = searcher(1)
    proposal = proposed(whole)
    whole.released(proposal.trial, release(proposal), LAST)
    assert not whole.close()
    assert told(whole)[-1] == ("closed", None)


def test_a_search_whose_front_has_stopped_growing_proposes_no_more() -> None:
    searching = searcher(20, stop_when=StopWhenDone(min_growth=0.9, within_cost=25))
    n = 0
    while (proposal := searching.propose()) is not None:
        searching.released(proposal.trial, release(proposal), LAST)
        n += 1
    assert n == 2
    assert not searching.close()


@pytest.mark.slow
def test_a_loop_drives_real_trainings() -> None:
    base = tiny_config()
    searching = Searcher(SamplingProposer(new_ledger(), SPACES["smoke"], base), n_trials=2)
    runs: dict[str, Training] = {}

    def begin(proposal: Proposal) -> Training:
        config = replace_at(
            proposal.config, "evaluation.release_ratios", [0.0, proposal.mixing_ratio, 1.0]
        )
        trainer = GeneralistTrainer(config, cached_dataset(config.data))
        runs[proposal.trial] = Training(trainer)
        return runs[proposal.trial]

    run_here(searching, begin)
    assert searching.ledger.results.counts().completed == 2
    assert searching.ledger.results.cost()["forward_images"] == sum(
        run.trainer.forward_images for run in runs.values()
    )
    assert searching.ledger.results.cost()["seconds"] == sum(run.seconds for run in runs.values())


# What ends a search


def choosing(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Three configurations."""
    size = trial.suggest_categorical("batch_size", ["16", "32", "64"])
    return replace_at(base, "batch_size", int(size))


FAILED = Failure(kind="error", reason="planted")


@pytest.mark.parametrize("round_size", [None, 1])
def test_the_search_ends_after_the_allowed_failures(round_size: int | None) -> None:
    searching = searcher(20, max_failures=3, round_size=round_size)
    for n in range(3):
        assert searching.error is None
        assert searching.n_to_begin == 20 - n
        searching.failed(proposed(searching).trial, PLANTED)
    assert isinstance(searching.error, WorkerError)
    assert "3 trials failed, as many as --max-failures allows" in str(searching.error)
    assert PLANTED.reason in str(searching.error)
    assert (searching.n_to_begin, searching.propose()) == (0, None)


def test_refused_suggestions_are_failures_too() -> None:
    def refusing(trial: Trial, base: TrainConfig) -> TrainConfig:
        raise InvalidConfigError("never")

    searching = searcher(20, refusing, max_failures=2)
    assert searching.propose() is None
    assert searching.ledger.results.failure_kinds() == {"invalid": 2}
    assert isinstance(searching.error, WorkerError)


@pytest.mark.parametrize("round_size", [None, 1, 4])
def test_a_space_in_which_everything_fails_comes_to_its_end(round_size: int | None) -> None:
    searching = searcher(8, choosing, round_size=round_size)
    while (proposal := searching.propose()) is not None:
        searching.failed(proposal.trial, FAILED)
    assert searching.ledger.results.failure_kinds() == {"error": 3}
    assert searching.exhausted == "all 3 configurations of the space were tried"
    assert not searching.close()


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "gp"])
@pytest.mark.parametrize("round_size", [None, 2])
def test_a_small_space_is_trained_once_and_ends_the_search(
    sampler: str, round_size: int | None
) -> None:
    searching = searcher(20, choosing, round_size=round_size, sampler=sampler)
    trained = []
    while (proposal := searching.propose()) is not None:
        trained.append(proposal.config.batch_size)
        searching.released(proposal.trial, release(proposal), LAST)
    assert sorted(trained) == [16, 32, 64]
    assert searching.exhausted == "all 3 configurations of the space were tried"
    assert searching.ledger.results.counts().total == 3
    assert not searching.close()


def test_the_search_does_not_end_before_all_running_trials_have() -> None:
    """One of them fails with its worker, so its configuration is tried again."""
    searching = searcher(20, choosing, n_workers=4)
    running = [proposed(searching) for _ in range(3)]
    assert [searching.propose() for _ in range(2)] == [None, None]
    assert searching.is_waiting
    assert not searching.is_full
    assert searching.n_to_begin == 17
    searching.failed(running[1].trial, PLANTED)
    again = proposed(searching)
    assert again.config == running[1].config
    for proposal in (running[0], running[2], again):
        assert searching.propose() is None
        assert searching.exhausted == ""
        searching.released(proposal.trial, release(proposal), LAST)
    assert searching.propose() is None
    assert searching.n_to_begin == 0
    assert searching.exhausted


def test_what_fails_ends_with_the_failure_of_its_round() -> None:
    """All trials of a round may fail: they were proposed before the first end was told."""
    searching = searcher(6, choosing, round_size=3, n_workers=3)
    first = [proposed(searching) for _ in range(3)]
    for proposal in reversed(first):
        searching.failed(proposal.trial, FAILED)
    assert [trial for what, trial in told(searching) if what == "failed"] == [
        proposal.trial for proposal in first
    ]


def test_a_search_that_cannot_write_leaves_its_trials_running() -> None:
    """The study cannot be written either: nothing is paused, and all trials can continue later."""
    searching = searcher(4, n_workers=2)
    first, second = proposed(searching), proposed(searching)
    searching.abort(OSError("no space left"))
    searching.abort(ValueError("a consequence"))
    assert str(searching.error) == "no space left"
    assert searching.propose() is None
    assert searching.close()
    states = [trial.state for trial in searching.ledger.study.get_trials()]
    assert states == [TrialState.RUNNING] * 2
    assert searching.ledger.resume() == [first, second]


def test_another_error_leaves_its_trials_waiting() -> None:
    searching = searcher(4, n_workers=2)
    trials = [proposed(searching), proposed(searching)]
    searching.abort(WorkerError("planted"))
    assert searching.close()
    assert {trial.state for trial in searching.ledger.study.get_trials()} == {TrialState.WAITING}
    assert searching.ledger.resume() == trials


def test_a_search_continues_with_its_unfinished_trials_first() -> None:
    first = searcher(4, n_workers=3)
    trials = [proposed(first) for _ in range(3)]
    first.released(trials[1].trial, release(trials[1]), LAST)
    first.close()
    ledger = first.ledger
    unfinished = ledger.resume()
    proposer = SamplingProposer(ledger, SPACES["smoke"], short())
    again = Searcher(proposer, n_trials=4, unfinished=unfinished)
    assert again.n_to_begin == 3
    assert [proposed(again).trial for _ in range(3)] == ["0000", "0002", "0003"]
    assert again.propose() is None


def test_a_request_for_fewer_trials_than_were_asked_proposes_none() -> None:
    first = searcher(4)
    for _ in range(3):
        first.released((trial := proposed(first)).trial, release(trial), LAST)
    again = Searcher(SamplingProposer(first.ledger, SPACES["smoke"], short()), n_trials=2)
    assert (again.n_to_begin, again.propose(), again.close()) == (0, None, False)


@pytest.mark.parametrize(("round_size", "begins"), [(None, False), (2, True)])
def test_a_budget_is_spent_by_what_runs_and_in_rounds_by_what_has_ended(
    round_size: int | None, begins: bool
) -> None:
    """In rounds it must not matter how far the others of the round are."""
    searching = searcher(n_workers=2, budget=50.0, round_size=round_size)
    trial = proposed(searching).trial
    searching.report(trial, epoch(1, cost=49.0))
    assert searching.n_to_begin == 3
    searching.report(trial, epoch(2, cost=50.0))
    assert (searching.n_to_begin > 0) == (searching.propose() is not None) == begins
