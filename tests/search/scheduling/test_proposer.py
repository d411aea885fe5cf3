"""What a sweep tries first, and the plain proposer, in which the sampler suggests the rest."""

from __future__ import annotations

import pytest

from generalist_core.config import TrainConfig
from generalist_core.config.presets import paper, short
from generalist_core.training.warmup_keys import discarded_warmups
from search.scheduling.proposer import SamplingProposer, adversarial_suggestion
from spaces import SPACES, base_suggestion, paper_suggestion
from tests.helpers.ledgers import COST, new_ledger, release
from tests.helpers.problems import three_experts

SPACE = SPACES["full"]


def first_trial(space: str, base: TrainConfig) -> tuple[TrainConfig, object]:
    proposer = SamplingProposer(new_ledger(), SPACES[space], base)
    proposer.enqueue_first()
    proposal = proposer.propose()
    return proposal.config, proposal.mixing_ratio


@pytest.mark.parametrize("space", ["mixing", "full"])
@pytest.mark.parametrize("base", [short(), paper()], ids=["short", "paper"])
def test_the_first_trial_is_plain_adversarial_training(space: str, base: TrainConfig) -> None:
    """The robust expert has all the weight throughout, and is released alone."""
    config, ratio = first_trial(space, base)
    assert ratio == 1.0
    assert {config.weights_at(epoch) for epoch in range(config.epochs)} == {(0.0, 1.0)}
    assert config.sync.start_epoch == config.epochs - 1
    assert discarded_warmups(config) == {"natural"}
    assert config.experts[1].optimizer == base.experts[1].optimizer


@pytest.mark.parametrize("space", ["mixing", "full"])
def test_with_three_experts_the_last_one_is_released_alone(space: str) -> None:
    """It has all the weight throughout, and the only sync comes before the last epoch."""
    config, ratio = first_trial(space, three_experts())
    assert ratio == (0.0, 0.0, 1.0)
    assert config.sync.start_epoch == config.epochs - 1
    assert {config.weights_at(epoch) for epoch in range(config.epochs)} == {(0.0, 0.0, 1.0)}


def test_a_sweep_begins_with_three_trials_if_they_differ() -> None:
    makes = (adversarial_suggestion, paper_suggestion, base_suggestion)
    proposer = SamplingProposer(new_ledger(), SPACE, short())
    assert proposer.first() == [make(SPACE, short()) for make in makes]
    proposer.enqueue_first()
    for params, ratio in proposer.first():
        proposal = proposer.propose()
        assert params.items() <= dict(proposal.params).items()
        assert proposal.mixing_ratio == ratio


def test_what_differs_in_its_release_alone_is_trained_once() -> None:
    """The space `experts` has no ratio: it cannot make the base adversarial training."""
    first = SamplingProposer(new_ledger(), SPACES["experts"], short()).first()
    assert first[0][1] == 1.0
    params = [str(params) for params, _ in first]
    assert len(set(params)) == len(params) == 2


def test_what_was_asked_before_is_not_enqueued_again() -> None:
    proposer = SamplingProposer(new_ledger(), SPACE, short())
    proposer.enqueue_first()
    proposer.propose()
    again = SamplingProposer(proposer.ledger, SPACE, short())
    again.ledger.sampling.enqueued.clear()
    again.enqueue_first()
    assert len(again.ledger.sampling.enqueued) == 2


def test_after_that_the_sampler_decides_alone() -> None:
    proposer, ledger = SamplingProposer(new_ledger(), SPACE, short()), new_ledger()
    for _ in range(4):
        proposed, asked = proposer.propose(), ledger.ask(SPACE, short())
        assert proposed.params == asked.params
        for one, trial in ((proposer.ledger, proposed), (ledger, asked)):
            one.tell_released(trial.trial, release(trial), COST)
        proposer.completed(proposed.trial)
