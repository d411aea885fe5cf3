"""Branches share what comes before the first sync; families that paid get more of them."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from optuna.storages import InMemoryStorage

from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from search.config import SAMPLERS, Branching
from search.scheduling.proposer import Proposer, warmup_params
from search.study.records import Proposal, RejectedError
from spaces import SPACES, Trial, base_suggestion, paper_suggestion
from tests.helpers.ledgers import COST, PLANTED, new_ledger, release

SPACE = SPACES["full"]


def finish(proposer: Proposer, proposal: Proposal) -> None:
    """Every trial releases the same points, so only the first makes the front grow."""
    proposer.ledger.tell_released(proposal.trial, release(proposal), COST)
    proposer.completed(proposal.trial)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_branch_keeps_the_warm_up_and_varies_what_follows(sampler: str) -> None:
    proposer = Proposer(new_ledger(sampler), SPACE, short(), Branching(first=2, more=1))
    parent = proposer.propose()
    finish(proposer, parent)
    branch = proposer.propose()
    assert warmup_params(branch.params) == warmup_params(parent.params)
    assert branch.params != parent.params
    assert branch.config.experts == parent.config.experts
    assert branch.config.mixing.decay == parent.config.mixing.decay


def test_a_family_has_few_branches_at_first_and_more_if_they_pay() -> None:
    proposer = Proposer(new_ledger(), SPACE, short(), Branching(first=2, more=1, most=1.0))
    families = []
    for _ in range(6):
        proposal = proposer.propose()
        finish(proposer, proposal)
        families.append(proposer.family_of[proposal.trial])
    first, second = families[0], families[3]
    assert [family is first for family in families] == [True, True, True, False, False, False]
    assert [family is second for family in families[3:5]] == [True, True]
    assert (first.n_paid, second.n_paid) == (1, 0)
    assert families[5] is not second


def test_at_most_a_fraction_of_all_proposals_are_branches() -> None:
    proposer = Proposer(new_ledger(), SPACE, short(), Branching(first=100, most=0.5))
    for n in range(1, 9):
        finish(proposer, proposer.propose())
        assert proposer.n_branches == n // 2


def test_what_was_enqueued_comes_before_any_branch() -> None:
    proposer = Proposer(new_ledger(), SPACE, short(), Branching())
    wanted = [make(SPACE, short()) for make in (paper_suggestion, base_suggestion)]
    for params, ratio in wanted:
        proposer.ledger.enqueue(params, ratio, 2)
    for params, _ in wanted:
        proposal = proposer.propose()
        finish(proposer, proposal)
        assert params.items() <= dict(proposal.params).items()
    assert proposer.n_branches == 0
    proposer.propose()
    assert proposer.n_branches == 1


def test_a_little_growth_does_not_pay() -> None:
    for min_growth, n_paid in ((0.0, 2), (0.9, 1)):
        branching = Branching(first=2, min_growth=min_growth, most=1.0)
        proposer = Proposer(new_ledger(), SPACE, short(), branching)
        for gain in (0.0, 0.1):
            proposal = proposer.propose()
            points = [
                dataclasses.replace(p, accuracies={"natural": 0.9, "robust": 0.5 + gain})
                for p in release(proposal)
            ]
            proposer.ledger.tell_released(proposal.trial, points, COST)
            proposer.completed(proposal.trial)
        assert proposer.families[0].n_paid == n_paid


def test_while_nothing_is_finished_everything_is_new() -> None:
    proposer = Proposer(new_ledger(), SPACE, short(), Branching(first=5))
    trials = [proposer.propose() for _ in range(4)]
    assert len({str(warmup_params(trial.params)) for trial in trials}) == 4


def test_a_failed_warm_up_gets_no_branches() -> None:
    proposer = Proposer(new_ledger(), SPACE, short(), Branching(first=5))
    failed = proposer.propose()
    proposer.ledger.tell_failed(failed.trial, PLANTED)
    assert warmup_params(proposer.propose().params) != warmup_params(failed.params)


def test_without_branching_the_sampler_decides_alone() -> None:
    proposer, ledger = Proposer(new_ledger(), SPACE, short()), new_ledger()
    for _ in range(4):
        proposed, asked = proposer.propose(), ledger.ask(SPACE, short())
        assert proposed.params == asked.params
        finish(proposer, proposed)
        ledger.tell_released(asked.trial, release(asked), COST)


def test_a_space_without_co_training_has_no_branches() -> None:
    proposer = Proposer(new_ledger(), SPACES["experts"], short(), Branching(first=9, most=1.0))
    for _ in range(3):
        finish(proposer, proposer.propose())
    assert proposer.n_branches == 0


def moody(trial: Trial, base: TrainConfig) -> TrainConfig:
    """A space with few warm-ups, which the sampler suggests repeatedly, and with refusals."""
    rate = trial.suggest_categorical("rate", ["0.1", "0.2"])
    base = replace_at(base, "experts.natural.optimizer.lr", float(rate))
    start = trial.suggest_int("sync.start_epoch", 1, 19)
    return replace_at(base, "sync.start_epoch", start)


def test_a_reopened_proposer_knows_what_it_knew() -> None:
    """Also after refusals (of late first syncs) and accidental branches."""
    storage, branching = InMemoryStorage(), Branching(first=2, more=1)
    proposer = Proposer(new_ledger(storage=storage), moody, short(), branching)
    for n in range(14):
        with contextlib.suppress(RejectedError):
            proposal = proposer.propose()
            if n % 4 == 3:
                proposer.ledger.tell_failed(proposal.trial, PLANTED)
            else:
                finish(proposer, proposal)
        again = Proposer(new_ledger(storage=storage, is_new=False), moody, short(), branching)
        assert again.families == proposer.families
        assert again.n_branches == proposer.n_branches
        assert again.hypervolume == proposer.hypervolume
    assert proposer.ledger.results.failure_kinds().keys() == {"error", "invalid"}
    assert proposer.n_branches > 2
