"""What to run next in a population of lineages: population-based training with several objectives.

Each member trains a robust expert step by step (Jaderberg et al. 2017, arXiv 1711.09846). At the
end of each step a branch leaves it, so all steps yield operating points; the first releases the
robust expert alone. A member of the worst then takes over the lineage of one of the best, and
explores other hyperparameters from there: a quarter above or below, or what the sampler suggests.
Members are compared by the hypervolume of the points that their last completed step released.
MO-PBT (Dushatskiy et al. 2023, arXiv 2306.01436), whose members have one point each, ranks them by
non-dominated fronts.

Nobody waits for a generation to end: the member that took the fewest steps goes on, and is compared
with what the others have reached. Where all members are in training and a worker is free, one more
member begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from generalist_core.config import ExpertConfig, TrainConfig
from generalist_core.randomness import derive_seed
from generalist_core.training.cost import update_cost
from search.config import Population
from search.front.points import by_trial, trial_id
from search.scheduling.branching import BranchingProposer
from search.scheduling.proposer import Suggestion
from search.study.ledger import Ledger
from search.study.records import ExhaustedError, Proposal
from spaces import Space, Trial
from spaces.lineages import continued, lineage_params, robust_of


@dataclass(kw_only=True)
class Member:
    """A member by its `last` trial, which may run, and the one that it goes on from.

    `reached` is the last trial that was completed, and `volume` the hypervolume of its points.
    """

    last: Proposal
    n_steps: int = 1
    reached: Proposal | None = None
    volume: float = 0.0


class PopulationProposer(BranchingProposer):
    """Trains the members of a population, and lets the worst take over the best."""

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        base: TrainConfig,
        population: Population,
        *,
        point_cost: float,
        seed: int,
    ) -> None:
        """Begin, or continue from what the ledger has proposed and been told.

        `point_cost` is what an operating point costs, in forward images per training image; the
        `seed` draws what is taken over and explored.
        """
        super().__init__(
            ledger, space, base, first_cost=population.step_cost, point_cost=point_cost
        )
        self.population = population
        self.seed = seed
        self.members: dict[int, Member] = {}
        released = by_trial(ledger.results.points())
        for proposal in ledger.results.proposals():
            self._begin(proposal)
            if proposal.trial in released:
                self.completed(proposal.trial)

    def first(self) -> list[Suggestion]:
        """As many of the first lineages as there are members."""
        return super().first()[: self.population.n_members]

    def propose(self) -> Proposal:
        """The first step of a new member, or the next one of the member that took the fewest.

        In a small space there may be fewer lineages than members.
        """
        has_ended = self.ledger.results.has_ended
        free = {n: member for n, member in self.members.items() if has_ended(member.last.trial)}
        if len(self.members) < self.population.n_members or not free:
            with contextlib.suppress(ExhaustedError) if free else contextlib.nullcontext():
                return self._begin(self._new(len(self.members)))
        number = min(free, key=lambda n: free[n].n_steps)
        return self._begin(self._next(number, free[number]))

    def completed(self, trial: str) -> None:
        """Take in the points of a trial."""
        points = [point for point in self.ledger.results.points() if point.trial == trial]
        member = next(each for each in self.members.values() if each.last.trial == trial)
        member.reached = member.last
        member.volume = self.ledger.results.goals.front_of(points).hypervolume

    def _begin(self, proposal: Proposal) -> Proposal:
        assert proposal.member is not None
        member = self.members.setdefault(proposal.member, Member(last=proposal, n_steps=0))
        member.last = proposal
        member.n_steps += 1
        return proposal

    def _new(self, number: int) -> Proposal:
        return self.new_lineage(number, member=number)

    def _next(self, number: int, member: Member) -> Proposal:
        """A step on the member's own lineage, or on one of the best if it is among the worst.

        A member whose step failed counts as the worst of all.
        """
        reached = [each for each in self.members.values() if each.reached is not None]
        reached.sort(key=lambda each: each.volume, reverse=True)
        n_replaced = int(len(reached) * self.population.replaced)
        if not reached:
            return self._new(number)
        worst = reached[len(reached) - n_replaced :]
        if member.reached is member.last and all(member is not each for each in worst):
            given = lineage_params(member.last.params, member.last.config)
            return self._step(number, member.last, given)
        purpose = ("population", trial_id(self.ledger.results.n_asked))
        rng = np.random.default_rng(derive_seed(self.seed, *purpose))
        before = reached[rng.integers(max(1, n_replaced))].reached
        assert before is not None
        return self._step(number, before, self._explored(before, rng))

    def _step(self, number: int, before: Proposal, given: Mapping[str, Any]) -> Proposal:
        """A branch at the end of a step with the parameters that are given, after that trial's."""
        cost, start = self.population.step_cost, before.config.sync.start_epoch

        def epochs_of(robust: ExpertConfig) -> int:
            return start + max(1, round(cost / update_cost(robust)))

        def space(trial: Trial, base: TrainConfig) -> TrainConfig:
            config = self.further_stage(trial, base, epochs_of=epochs_of, spent=cost)
            return continued(config, before.config)

        return self.ledger.ask(space, self.base, fixed=given, member=number)

    def _explored(self, before: Proposal, rng: np.random.Generator) -> dict[str, Any]:
        """The parameters of a lineage that are given to the one that takes it over.

        The robust expert's may change while it is trained, but for the kind of its optimizer, which
        keeps its state. Those that are drawn anew are left to the sampler.
        """
        path = f"experts.{robust_of(before.config).name}."
        distributions = self.ledger.results.trial(before.trial).distributions
        given = lineage_params(before.params, before.config)
        for name in [name for name in given if name.startswith(path)]:
            if name == f"{path}optimizer":
                continue
            if rng.random() < self.population.resampled:
                del given[name]
            else:
                given[name] = moved(given[name], distributions[name], int(rng.choice([-1, 1])))
        return given


def moved(value: Any, distribution: BaseDistribution, way: int) -> Any:
    """A number a quarter of itself above (way 1) or below (-1), within its range; a choice as is.

    A whole number moves by 1 at least.
    """
    if isinstance(distribution, CategoricalDistribution):
        return value
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    step = distribution.step or 0.0
    change = max(abs(value) / 4, step)
    if step:
        change = step * round(change / step)
    return min(max(value + way * change, distribution.low), distribution.high)
