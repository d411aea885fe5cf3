"""Lineages grow stage by stage, branches leave them, and nothing blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from optuna.storages import InMemoryStorage

from generalist_core.config import PGD, SGD, TRADES, CrossEntropy, TrainConfig
from generalist_core.config.presets import generalist_plus_plus, short
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.validation import InvalidConfigError
from search.config import SAMPLERS, Growing
from search.scheduling.branching import FEW_STEPS, LOW_BETA
from search.scheduling.lineages import Lineage, LineageProposer
from search.study.ledger import Ledger
from search.study.records import Proposal, RejectedError
from spaces import SPACES, Space, Trial
from spaces.lineages import LINEAGE, branch, lineage_params
from tests.helpers.ledgers import COST, PLANTED, finish, new_ledger
from tests.helpers.problems import with_expert

GROWING = Growing(n_first=4, eta=2, first_cost=20, second_cost=60, growth=1.5, patience=2)
POINT_COST = 2.0
BASE = short()

Quality = Callable[[Proposal], float]


def proposer_of(
    space: Space = SPACES["lineages"],
    *,
    growing: Growing = GROWING,
    sampler: str = "random",
    ledger: Ledger | None = None,
) -> LineageProposer:
    return LineageProposer(ledger or new_ledger(sampler), space, BASE, growing, POINT_COST)


def fail(proposer: LineageProposer, proposal: Proposal) -> None:
    proposer.ledger.tell_failed(proposal.trial, PLANTED)


def begun(proposer: LineageProposer, qualities: list[float]) -> list[Lineage]:
    """The lineages after first stages of these qualities."""
    for quality in qualities:
        finish(proposer, proposer.propose(), quality)
    return list(proposer.lineages)


def lineage_of(proposer: LineageProposer, proposal: Proposal) -> Lineage:
    return proposer.stage_of[proposal.trial][0]


# First stages


@pytest.mark.parametrize("space", ["branches", "lineages"])
def test_a_sweep_begins_with_the_base_few_steps_trades_and_the_paper(space: str) -> None:
    proposer = proposer_of(SPACES[space])
    proposer.enqueue_first()
    trials = [proposer.propose() for _ in range(4)]
    experts = [trial.config.experts[1] for trial in trials]
    steps = [expert.attack.steps for expert in experts]  # type: ignore[union-attr]
    assert experts[0].optimizer == BASE.experts[1].optimizer
    assert len({str(trial.params) for trial in trials}) == 4
    assert steps[:2] == [10, FEW_STEPS]
    if space == "lineages":
        assert steps[2:] == [FEW_STEPS, 10]
        plain = CrossEntropy()
        assert [expert.loss for expert in experts] == [plain, plain, TRADES(beta=LOW_BETA), plain]


def test_equal_suggestions_are_tried_once() -> None:
    """In `branches`, a base of few steps is its own cheap form."""
    attack = BASE.experts[1].attack
    base = with_expert(BASE, "robust", attack=type(attack)(epsilon=0.2, steps=FEW_STEPS))  # type: ignore[misc]
    proposer = LineageProposer(new_ledger(), SPACES["branches"], base, GROWING, POINT_COST)
    wanted = [params for params, _ in proposer.first()]
    assert len({str(params) for params in wanted}) == len(wanted) == 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_first_stage_ends_at_its_cost_and_releases_the_robust_expert_alone(sampler: str) -> None:
    """So that lineages are compared, and not what else was trained in their branches."""
    proposer = proposer_of(sampler=sampler)
    proposer.enqueue_first()
    for _ in range(20):
        proposal = proposer.propose()
        cost, n_epochs = lineage_of(proposer, proposal).cost, proposal.config.sync.start_epoch
        assert n_epochs == 1 or abs(n_epochs * cost - 20) <= cost / 2 + n_epochs
        assert proposal.config.experts[1].rests
        assert (proposal.config.cotraining_epochs, proposal.mixing_ratio) == (1, 1.0)
        evaluation = proposal.config.evaluation
        assert (evaluation.release_ratios, evaluation.n_refinements) == ((1.0,), 0)


def test_nothing_grows_before_the_first_lineages_have_ended() -> None:
    proposer = proposer_of()
    trials = [proposer.propose() for _ in range(4)]
    assert len(proposer.lineages) == 4
    for trial in trials[:3]:
        finish(proposer, trial, 0.5)
    waiting = proposer.propose()
    assert len(lineage_of(proposer, waiting).stages) == 1
    fail(proposer, trials[3])
    grown = proposer.propose()
    assert len(lineage_of(proposer, grown).stages) == 2


# Growth


def test_the_best_of_a_stage_grow_and_no_more() -> None:
    """Two of four (eta 2), the better one first, even while it runs."""
    proposer = proposer_of()
    lineages = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    grown = [proposer.propose() for _ in range(2)]
    assert [lineage_of(proposer, trial) for trial in grown] == [lineages[1], lineages[3]]
    branching = proposer.propose()
    assert lineage_of(proposer, branching) is lineages[1]
    assert branching.config.sync.start_epoch == lineages[1].stages[0].epochs
    new = proposer.propose()
    assert lineage_of(proposer, new) not in lineages
    assert [len(lineage.stages) for lineage in lineages] == [1, 2, 1, 2]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_grown_lineage_keeps_its_parameters(sampler: str) -> None:
    proposer = proposer_of(sampler=sampler)
    lineages = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    grown = proposer.propose()
    assert lineage_params(grown.params, grown.config) == lineages[1].params
    first = proposer.ledger.results.proposals()[1].config
    assert grown.config.experts[1].optimizer == first.experts[1].optimizer
    assert grown.config.sync.start_epoch > first.sync.start_epoch
    assert grown.config.evaluation.n_images == BASE.evaluation.n_images


def test_later_stages_end_at_equal_costs() -> None:
    """Each a growth of 1.5 after the one before, from 60; rounded to epochs."""
    proposer = proposer_of(
        growing=Growing(n_first=4, eta=2, first_cost=20, second_cost=60, growth=1.5, patience=99)
    )
    begun(proposer, [0.3, 0.6, 0.1, 0.5])
    for n in range(6):
        finish(proposer, proposer.propose(), 0.6 + n / 100)
    for lineage in proposer.lineages:
        for stage, cost in zip(lineage.stages[1:], (60, 90, 135, 202.5, 303.75), strict=False):
            assert stage.epochs == round(cost / lineage.cost)
    assert max(len(lineage.stages) for lineage in proposer.lineages) >= 4


def test_a_stage_is_longer_than_judging_it_costs() -> None:
    growing = Growing(n_first=1, first_cost=20, second_cost=60, growth=1.01, patience=99)
    proposer = LineageProposer(new_ledger(), SPACES["lineages"], BASE, growing, 50 / 3)
    (lineage,) = begun(proposer, [0.3])
    for n in range(3):
        finish(proposer, proposer.propose(), 0.4 + n / 10)
    epochs = [stage.epochs for stage in lineage.stages[1:]]
    assert epochs == [round(cost / lineage.cost) for cost in (60, 110, 160)]


def test_growth_goes_on_when_nothing_else_does_and_rests_when_it_does_not_pay() -> None:
    proposer = proposer_of()
    lineages = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    best, other = lineages[1], lineages[3]
    grown = ((best, 0.7), (other, 0.4), (best, 0.8), (best, 0.9), (best, 0.2), (best, 0.2))
    for lineage, quality in grown:
        proposal = proposer.propose()
        assert lineage_of(proposer, proposal) is lineage
        finish(proposer, proposal, quality)
    assert [stage.paid for stage in best.stages] == [True, True, True, True, False, False]
    assert best.n_in_vain == 2
    branch = proposer.propose()
    assert (lineage_of(proposer, branch), branch.config.sync.start_epoch) == (
        best,
        best.stages[3].epochs,
    )


def test_another_goes_on_in_place_of_one_that_rests_but_is_measured_by_it() -> None:
    growing = Growing(n_first=4, eta=4, first_cost=20, second_cost=90, patience=1)
    proposer = proposer_of(growing=growing)
    lineages = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    for lineage, quality in ((lineages[1], 0.5), (lineages[3], 0.45)):
        proposal = proposer.propose()
        assert lineage_of(proposer, proposal) is lineage
        finish(proposer, proposal, quality)
    others = [lineage_of(proposer, proposer.propose()) for _ in range(2)]
    assert lineages[3] not in others


@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_leader_that_rests_goes_on_when_others_have_cost_as_much(n_workers: int) -> None:
    """So it gets half of the compute, but for what is running: a stage of its own, or of others."""
    proposer = proposer_of()
    (leader, *_) = begun(proposer, [0.9, 0.3, 0.2, 0.1])
    running: list[Proposal] = []
    for _ in range(80):
        while len(running) < n_workers:
            running.append(proposer.propose())
        proposal = running.pop(0)
        lineage = lineage_of(proposer, proposal)
        finish(proposer, proposal, 0.9 if lineage is leader else 0.2)
    costs = [lineage.stages[-1].epochs * lineage.cost for lineage in proposer.lineages]
    share = costs[0] / sum(costs)
    assert 1 / 3 < share < 2 / 3
    assert len(leader.stages) > 4
    assert all(len(stage.trials) <= 1 + GROWING.patience for stage in leader.stages)


def test_growth_of_a_lineage_behind_the_front_pays() -> None:
    proposer = proposer_of()
    lineages = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    for quality in (0.8, 0.7):
        finish(proposer, proposer.propose(), quality)
    assert [stage.paid for stage in lineages[3].stages] == [True, True]


def test_a_little_growth_of_the_front_does_not_pay() -> None:
    for gain, pays in ((0.005, False), (0.007, True)):
        proposer = proposer_of()
        begun(proposer, [0.3, 0.6, 0.1, 0.5])
        proposal = proposer.propose()
        finish(proposer, proposal, 0.6 + gain)
        assert proposer.stage_of[proposal.trial][1].paid == pays


def test_a_stage_that_paid_once_has_paid() -> None:
    """A further branch of it, which adds nothing, changes nothing."""
    proposer = proposer_of()
    lineages = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    for _ in range(2):
        proposer.propose()
    further = proposer.propose()
    lineage, stage = proposer.stage_of[further.trial]
    assert (lineage, len(stage.trials), stage.paid) == (lineages[1], 2, True)
    finish(proposer, further, 0.2)
    assert stage.paid


# What fails, and what is missing


def test_lineages_that_fail_do_not_block_others() -> None:
    proposer = proposer_of()
    for _ in range(6):
        fail(proposer, proposer.propose())
    assert len(proposer.lineages) == 6
    finish(proposer, proposer.propose(), 0.5)
    grown = proposer.propose()
    assert len(lineage_of(proposer, grown).stages) == 2
    fail(proposer, grown)
    for _ in range(12):
        finish(proposer, proposer.propose(), 0.4)
    assert max(len(lineage.stages) for lineage in proposer.lineages[7:]) >= 2


def test_a_stage_whose_branch_failed_is_tried_again_and_then_given_up() -> None:
    """The failure may be that of the branch, such as one of a large natural rate."""
    proposer = proposer_of()
    lineages = begun(proposer, [0.3, 0.6, 0.1, 0.5])
    first, other = proposer.propose(), proposer.propose()
    assert [lineage_of(proposer, trial) for trial in (first, other)] == [lineages[1], lineages[3]]
    fail(proposer, first)
    again = proposer.propose()
    assert proposer.stage_of[again.trial] == proposer.stage_of[first.trial]
    assert again.params != first.params
    fail(proposer, again)
    for _ in range(4):
        finish(proposer, proposer.propose(), 0.2)
    assert [len(stage.trials) for stage in lineages[1].stages[1:]] == [2]


@pytest.mark.parametrize("rests", [True, False])
def test_a_lineage_that_rests_in_a_further_branch_is_not_judged_again(rests: bool) -> None:
    """One that is trained in the branch has another average than what was released before."""

    def space(trial: Trial, base: TrainConfig) -> TrainConfig:
        return with_expert(SPACES["lineages"](trial, base), "robust", rests=rests)

    proposer = proposer_of(space)
    best = begun(proposer, [0.3, 0.6, 0.1, 0.5])[1].stages[0]
    further = []
    for _ in range(12):
        trial = proposer.propose()
        ratios = trial.config.evaluation.release_ratios
        if proposer.stage_of[trial.trial][1] is best:
            further.append(ratios)
        elif len(ratios) > 1:
            assert ratios == (0.0, 1.0)
        finish(proposer, trial, 0.1)
    assert set(further) == {(0.0,) if rests else (0.0, 1.0)}


def test_a_space_with_one_lineage_grows_it() -> None:
    proposer = proposer_of(branch)
    begun(proposer, [0.3, 0.4, 0.5, 0.6])
    (lineage,) = proposer.lineages
    for _ in range(5):
        finish(proposer, proposer.propose(), 0.7)
    assert [len(stage.trials) for stage in lineage.stages] == [4, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("n_workers", [1, 3, 8])
def test_there_is_always_something_to_propose(n_workers: int) -> None:
    """However trials end, and in whatever order; a configuration is never proposed twice."""
    proposer, running = proposer_of(), []
    for n in range(60):
        while len(running) < n_workers:
            running.append(proposer.propose())
        proposal = running.pop(n % len(running))
        if n % 5 == 4:
            fail(proposer, proposal)
        else:
            finish(proposer, proposal, 0.2 + (n * 37 % 50) / 100)
    configs = [str(proposal.config) for proposal in proposer.ledger.results.proposals()]
    assert len(set(configs)) == len(configs)
    assert max(len(lineage.stages) for lineage in proposer.lineages) >= 3


# State


def moody(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Few lineages, which the sampler suggests repeatedly, and refusals."""
    if trial.suggest_int("mood", 0, 3) == 0:
        raise InvalidConfigError("not today")
    rate = trial.suggest_categorical("rate", ["0.1", "0.2", "0.3", "0.4", "0.5"])
    return branch(trial, with_expert(base, "robust", optimizer=SGD(lr=float(rate))))


@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_reopened_proposer_knows_what_it_knew(n_workers: int) -> None:
    """At any point, also after failures and refusals."""
    storage = InMemoryStorage()
    proposer = proposer_of(moody, ledger=new_ledger(storage=storage))
    running: list[Proposal] = []
    for n in range(30):
        while len(running) < n_workers:
            with contextlib.suppress(RejectedError):
                running.append(proposer.propose())
        if n % 4 == 3:
            fail(proposer, running.pop(0))
        else:
            finish(proposer, running.pop(0), 0.2 + (n * 37 % 50) / 100)
        again = proposer_of(moody, ledger=new_ledger(storage=storage, is_new=False))
        assert again.lineages == proposer.lineages
        assert again.stage_of == proposer.stage_of
        assert again.hypervolume == proposer.hypervolume
    assert proposer.ledger.results.failure_kinds().keys() == {"error", "invalid"}
    assert max(len(lineage.stages) for lineage in proposer.lineages) >= 3


@pytest.mark.parametrize(("second_cost", "n_refinements"), [(30, 0), (80, 1), (200, 3)])
def test_a_curve_is_refined_for_at_most_half_of_what_the_stage_cost(
    second_cost: float, n_refinements: int
) -> None:
    """A point costs 8, three are released anyway, and the base allows three more."""
    growing = Growing(n_first=1, first_cost=2, second_cost=second_cost)
    proposer = LineageProposer(new_ledger(), SPACES["branches"], BASE, growing, 8.0)
    begun(proposer, [0.3])
    assert proposer.propose().config.evaluation.n_refinements == n_refinements


# Several norms


NORMS = generalist_plus_plus("natural", "linf", "l2")


def of_norms(ledger: Ledger) -> LineageProposer:
    return LineageProposer(ledger, SPACES["lineages"], NORMS, GROWING, POINT_COST)


def ledger_of_norms(storage: InMemoryStorage, *, is_new: bool = True) -> Ledger:
    return new_ledger(storage=storage, is_new=is_new, objectives=NORMS.evaluation.objective_names)


def release_alone(proposer: LineageProposer, proposal: Proposal, quality: float) -> None:
    accuracies = dict.fromkeys(NORMS.evaluation.objective_names, quality)
    ratio = proposal.mixing_ratio
    point = OperatingPoint(mixing_ratio=ratio, accuracies=accuracies, n_images=100, epoch=3)
    proposer.ledger.tell_released(proposal.trial, [point], COST)
    proposer.completed(proposal.trial)


def test_every_norm_begins_with_adversarial_training_and_few_steps_of_its_own() -> None:
    proposer = of_norms(ledger_of_norms(InMemoryStorage()))
    proposer.enqueue_first()
    trials = [proposer.propose() for _ in range(6)]
    configs = [trial.config for trial in trials]
    assert [config.lineage for config in configs[:4]] == ["linf", "l2", "linf", "l2"]
    for trial, config in zip(trials, configs, strict=True):
        robust = next(expert for expert in config.experts if expert.name == config.lineage)
        alone = tuple(float(expert is robust) for expert in config.experts)
        assert trial.mixing_ratio == alone
        assert config.evaluation.release_ratios == (alone,)
        assert [expert.rests for expert in config.experts] == [False, True, True]
    steps = [
        {e.name: e.attack.steps for e in c.experts if isinstance(e.attack, PGD)} for c in configs
    ]
    assert [steps[n][configs[n].lineage] for n in range(4)] == [10, 10, FEW_STEPS, FEW_STEPS]


def test_lineages_of_several_norms_grow_in_turns_and_go_on_after_a_resume() -> None:
    storage = InMemoryStorage()
    proposer = of_norms(ledger_of_norms(storage))
    proposer.enqueue_first()
    begun: list[Lineage] = []
    for n in range(30):
        proposal = proposer.propose()
        release_alone(proposer, proposal, 0.2 + (n * 37 % 50) / 100)
        begun += [one for one in proposer.lineages if one not in begun]
        again = of_norms(ledger_of_norms(storage, is_new=False))
        assert again.lineages == proposer.lineages
    new = [one.params[LINEAGE] for one in begun[6:]]
    assert new == [["linf", "l2"][n % 2] for n in range(6, len(begun))]
    grown = {one.params[LINEAGE] for one in proposer.lineages if len(one.stages) > 1}
    assert grown == {"linf", "l2"}


def test_a_space_that_chooses_no_norm_has_lineages_of_the_first() -> None:
    ledger = ledger_of_norms(InMemoryStorage())
    proposer = LineageProposer(ledger, branch, NORMS, GROWING, POINT_COST)
    for _ in range(3):
        proposal = proposer.propose()
        assert proposal.config.evaluation.release_ratios == (proposal.mixing_ratio,)
        assert proposal.mixing_ratio == (0.0, 1.0, 0.0)
