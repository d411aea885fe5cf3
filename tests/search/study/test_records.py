"""Records of trials."""

from __future__ import annotations

from generalist_core.config.presets import short
from search.study.records import RejectedError, TrialCounts
from spaces import SPACES
from tests.helpers.ledgers import COST, LOW, PLANTED, new_ledger, release


def test_unfinished_trials_are_not_in_the_total() -> None:
    assert TrialCounts(completed=1, stopped_early=2, failed=4, unfinished=8).total == 7


def test_a_rejected_suggestion_names_its_trial_and_the_reason() -> None:
    error = RejectedError("0003", "not valid")
    assert (error.trial, str(error)) == ("0003", "not valid")


def test_a_record_says_how_each_trial_ended() -> None:
    ledger = new_ledger()
    ledger.enqueue({"sync.start_epoch": 5}, 0.5, 2)
    proposals = [ledger.ask(SPACES["smoke"], short()) for _ in range(4)]
    ledger.tell_released(proposals[0].trial, release(proposals[0]), COST)
    ledger.tell_stopped(proposals[1].trial, 3, COST, LOW)
    ledger.tell_failed(proposals[2].trial, PLANTED, COST)
    records = ledger.results.records()
    assert [record.state for record in records] == [
        "completed",
        "stopped early",
        "failed",
        "unfinished",
    ]
    assert [record.is_given for record in records] == [True, False, False, False]
    assert [record.stopped_at for record in records] == [None, 3, None, None]
    assert [record.failure for record in records] == [None, None, PLANTED, None]
    assert [record.cost for record in records] == [COST, COST, COST, {}]
    assert [record.params for record in records] == [proposal.params for proposal in proposals]
