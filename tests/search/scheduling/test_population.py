"""A population: members step by step, the worst take over the best, and nobody waits in vain."""

from __future__ import annotations

from collections import Counter

import pytest
from optuna.storages import InMemoryStorage

from generalist_core.config import EarlierSettings, TrainConfig
from generalist_core.config.presets import generalist_plus_plus, short
from generalist_core.training.cost import update_cost
from generalist_core.validation import InvalidConfigError
from search.config import SAMPLERS, Floor, Population, SweepConfig
from search.scheduling.population import PopulationProposer
from search.scheduling.proposers import build_proposer
from search.study.ledger import Ledger
from search.study.records import Proposal
from spaces import SPACES, Space, Trial, tune_float
from spaces.lineages import branch, lineage_params, robust_of
from tests.helpers.ledgers import OBJECTIVES, PLANTED, finish, new_ledger
from tests.helpers.problems import tiny_dataset

BASE = short()
FOUR = Population(n_members=4, step_cost=36)


def proposer_of(
    population: Population = FOUR,
    *,
    space: Space = SPACES["lineages"],
    base: TrainConfig = BASE,
    sampler: str = "random",
    ledger: Ledger | None = None,
) -> PopulationProposer:
    ledger = ledger or new_ledger(sampler)
    return PopulationProposer(ledger, space, base, population, point_cost=2.0, seed=0)


def begun(proposer: PopulationProposer, qualities: list[float]) -> list[Proposal]:
    """The first steps of the members, which reached these qualities."""
    trials = [proposer.propose() for _ in qualities]
    for trial, quality in zip(trials, qualities, strict=True):
        finish(proposer, trial, quality)
    return trials


def settings(config: TrainConfig) -> tuple[object, ...]:
    robust = robust_of(config)
    return robust.attack, robust.loss, robust.optimizer


@pytest.mark.parametrize("sampler", SAMPLERS[:-1])
def test_members_begin_with_the_first_lineages_and_take_steps_of_equal_cost(sampler: str) -> None:
    proposer = proposer_of(Population(n_members=6, step_cost=36), sampler=sampler)
    proposer.enqueue_first()
    trials = [proposer.propose() for _ in range(6)]
    assert [trial.member for trial in trials] == list(range(6))
    assert settings(trials[0].config) == settings(BASE)
    for trial in trials:
        cost = update_cost(robust_of(trial.config))
        n_epochs = trial.config.sync.start_epoch
        assert n_epochs == 1 or abs(n_epochs * cost - 36) <= cost / 2 + n_epochs
        assert trial.config.evaluation.release_ratios == (1.0,)
        finish(proposer, trial, 0.5)
    for number in range(6):
        step = proposer.propose()
        assert step.member == number
        before = trials[number].config.sync.start_epoch
        taken = step.config.sync.start_epoch - before
        assert taken >= 1
        assert len(step.config.evaluation.release_ratios) >= 2


def test_the_worst_takes_over_the_best_and_explores_from_there() -> None:
    proposer = proposer_of()
    first = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    steps = [proposer.propose() for _ in range(4)]
    for number in (0, 1, 3):
        assert lineage_params(steps[number].params, steps[number].config) == lineage_params(
            first[number].params, first[number].config
        )
        assert robust_of(steps[number].config).earlier == ()
    taken, best = steps[2].config, first[1].config
    attack, loss, optimizer = settings(best)
    past = EarlierSettings(
        until=best.sync.start_epoch,
        attack=attack,  # type: ignore[arg-type]
        loss=loss,  # type: ignore[arg-type]
        optimizer=optimizer,  # type: ignore[arg-type]
    )
    assert robust_of(taken).earlier == (past,)
    assert settings(taken) != settings(best)
    assert type(robust_of(taken).optimizer) is type(optimizer)
    assert taken.sync.start_epoch > best.sync.start_epoch
    assert taken.mixing.decay == best.mixing.decay


def test_members_are_compared_after_as_many_steps() -> None:
    """Later steps release whole curves, so whoever decides late would always be the worst."""
    proposer = proposer_of()
    begun(proposer, [0.3, 0.1, 0.2, 0.4])
    steps = []
    for quality in (0.7, 0.6, 0.5, 0.8):
        steps.append(proposer.propose())
        finish(proposer, steps[-1], quality)
    assert [bool(robust_of(step.config).earlier) for step in steps] == [False, True, False, False]


def test_of_two_members_the_worse_one_takes_over() -> None:
    proposer = proposer_of(Population(n_members=2))
    begun(proposer, [0.1, 0.3])
    steps = [proposer.propose(), proposer.propose()]
    assert [bool(robust_of(step.config).earlier) for step in steps] == [True, False]


def test_below_the_floors_members_are_compared_all_the_same() -> None:
    floor = Floor(objective="natural", accuracy=0.95)
    proposer = proposer_of(ledger=Ledger(InMemoryStorage(), OBJECTIVES, floors=[floor]))
    begun(proposer, [0.1, 0.3, 0.2, 0.4])
    steps = [proposer.propose() for _ in range(4)]
    assert [bool(robust_of(step.config).earlier) for step in steps] == [True, False, False, False]


def test_what_was_taken_over_grows() -> None:
    """In a long run the lineage of a member is all that it went through."""
    proposer = proposer_of()
    begun(proposer, [0.3, 0.6, 0.1, 0.5])
    for n in range(40):
        finish(proposer, proposer.propose(), 0.3 + 0.1 * (n * 7 % 5))
    proposals = proposer.ledger.results.proposals()
    assert set(Counter(proposal.member for proposal in proposals).values()) == {11}
    assert max(len(robust_of(proposal.config).earlier) for proposal in proposals) >= 3


def test_what_a_lineage_cannot_change_is_taken_over_as_it_is() -> None:
    """Or its weights would not be those of the lineage that is taken over."""

    def smooth(trial: Trial, base: TrainConfig) -> TrainConfig:
        path = "experts.robust.label_smoothing"
        return branch(trial, tune_float(trial, base, path, 0.0, 0.2))

    proposer = proposer_of(space=smooth)
    first = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    taken = [proposer.propose() for _ in range(3)][2]
    smoothing = robust_of(first[1].config).label_smoothing
    assert robust_of(taken.config).label_smoothing == smoothing


def test_a_member_whose_step_failed_goes_on_from_another() -> None:
    """However good it was before."""
    proposer = proposer_of()
    begun(proposer, [0.7, 0.3, 0.5, 0.4])
    steps = [proposer.propose() for _ in range(4)]
    proposer.ledger.tell_failed(steps[0].trial, PLANTED)
    for step, quality in zip(steps[1:], (0.3, 0.5, 0.4), strict=True):
        finish(proposer, step, quality)
    taken = proposer.propose()
    assert taken.member == 0
    assert robust_of(taken.config).earlier[-1].until == steps[2].config.sync.start_epoch
    assert taken.config.sync.start_epoch > steps[2].config.sync.start_epoch


def test_members_begin_anew_until_one_has_completed_a_step() -> None:
    proposer = proposer_of(Population(n_members=2))
    for n in range(6):
        trial = proposer.propose()
        assert trial.member == n % 2
        assert trial.config.evaluation.release_ratios == (1.0,)
        proposer.ledger.tell_failed(trial.trial, PLANTED)
    finish(proposer, proposer.propose(), 0.5)
    proposer.ledger.tell_failed(proposer.propose().trial, PLANTED)
    assert len(proposer.propose().config.evaluation.release_ratios) >= 2


def test_no_worker_waits() -> None:
    """More workers than members let the population grow."""
    proposer = proposer_of()
    assert [proposer.propose().member for _ in range(6)] == list(range(6))
    begun_again = proposer_of(ledger=proposer.ledger)
    assert begun_again.propose().member == 6


def test_it_continues_from_what_the_ledger_records() -> None:
    proposer = proposer_of()
    begun(proposer, [0.3, 0.6, 0.1, 0.5])
    for n in range(9):
        step = proposer.propose()
        if n % 4 == 1:
            proposer.ledger.tell_failed(step.trial, PLANTED)
        elif n % 4 != 2:
            finish(proposer, step, 0.2 + 0.1 * n)
    again = proposer_of(ledger=proposer.ledger)
    assert again.members == proposer.members
    assert again.propose() == proposer_of(ledger=proposer.ledger.before("0013")).propose()


def test_several_norms_keep_their_lineage() -> None:
    base = generalist_plus_plus("natural", "linf", "l2")
    proposer = proposer_of(base=base)
    trials = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    assert {trial.config.lineage for trial in trials} == {"linf", "l2"}
    steps = [proposer.propose() for _ in range(3)]
    assert steps[2].config.lineage == trials[1].config.lineage
    assert [step.config.lineage for step in steps[:2]] == [t.config.lineage for t in trials[:2]]


def test_a_small_space_ends() -> None:
    proposer = proposer_of(space=SPACES["branches"], base=BASE)
    assert len(proposer.first()) <= 4
    seen = set()
    for _ in range(30):
        trial = proposer.propose()
        seen.add(str(trial.config))
        finish(proposer, trial, 0.5)
    assert len(seen) == 30


@pytest.mark.parametrize(
    "wrong", [{"space": "full"}, {"sampler": "grid"}, {"space": "mixing"}], ids=str
)
def test_a_population_needs_lineages(wrong: dict[str, str]) -> None:
    config = SweepConfig(base=BASE, population=Population(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match="must have lineages as its members"):
        build_proposer(new_ledger(), SPACES[config.space], config, tiny_dataset)


@pytest.mark.parametrize(
    "wrong", [{"n_members": 1}, {"replaced": 0.6}, {"resampled": 1.0}, {"step_cost": 0.0}], ids=str
)
def test_numbers_that_make_no_population_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidConfigError, match=next(iter(wrong))):
        Population(**wrong)  # type: ignore[arg-type]
