"""What to run next in a population of lineages: population-based training with several objectives.

Each member trains a robust expert step by step (Jaderberg et al. 2017, arXiv 1711.09846). At the
end of each step a branch leaves it, so all steps yield operating points; the first releases the
robust expert alone. A member of the worst then takes over the lineage of one of the best, and
explores other hyperparameters from there: a quarter above or below, or what the sampler suggests.
Members are compared by the hypervolume of the points that they released after as many steps. MO-PBT
(Dushatskiy et al. 2023, arXiv 2306.01436), whose members have one point each, ranks them by
non-dominated fronts.

Nobody waits for a generation to end: the member that took the fewest steps goes on. Where all
members are in training and a worker is free, one more member begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from generalist_core.config import TrainConfig
from generalist_core.randomness import derive_seed
from search.config import Population
from search.front.front import Front
from search.front.points import FrontPoint, by_trial, trial_id
from search.scheduling.branching import BranchingProposer, epochs_for
from search.study.ledger import Ledger
from search.study.records import ExhaustedError, Proposal
from search.study.samplers import moved
from spaces import Space, Trial
from spaces.lineages import continued, lineage_params, robust_of


@dataclass(kw_only=True)
class Member:
    """A member by its `last` trial, which may run, and by `reached`, its last completed one.

    `volumes` are the hypervolumes after each of its steps, first above the floors, then above 0;
    one that failed has none.
    """

    last: Proposal
    n_steps: int = 0
    reached: Proposal | None = None
    volumes: dict[int, tuple[float, float]] = field(default_factory=dict)


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
            ledger,
            space,
            base,
            first_cost=population.step_cost,
            point_cost=point_cost,
            most=population.n_members,
        )
        self.population = population
        self.seed = seed
        self.members: dict[int, Member] = {}
        released = by_trial(ledger.results.points())
        for proposal in ledger.results.proposals():
            self._begin(proposal)
            if proposal.trial in released:
                self._completed(proposal.trial, released[proposal.trial])

    def propose(self) -> Proposal:
        """The first step of a new member, or the next one of the member that took the fewest.

        In a small space there may be fewer lineages than members.
        """
        has_ended = self.ledger.results.has_ended
        free = {n: member for n, member in self.members.items() if has_ended(member.last.trial)}
        if len(self.members) < self.population.n_members or not free:
            with contextlib.suppress(ExhaustedError) if free else contextlib.nullcontext():
                return self._begin(self.new_lineage(len(self.members), member=len(self.members)))
        number = min(free, key=lambda n: free[n].n_steps)
        return self._begin(self._next(number))

    def completed(self, trial: str) -> None:
        """Take in the points of a trial."""
        results = self.ledger.results
        self._completed(trial, [point for point in results.points() if point.trial == trial])

    def _completed(self, trial: str, points: Sequence[FrontPoint]) -> None:
        member = next(each for each in self.members.values() if each.last.trial == trial)
        member.reached, goals = member.last, self.ledger.results.goals
        above_0 = Front.of(points, goals.objectives).hypervolume
        member.volumes[member.n_steps] = (goals.front_of(points).hypervolume, above_0)

    def _begin(self, proposal: Proposal) -> Proposal:
        assert proposal.member is not None
        member = self.members.setdefault(proposal.member, Member(last=proposal))
        member.last = proposal
        member.n_steps += 1
        return proposal

    def _next(self, number: int) -> Proposal:
        """A step on the member's own lineage, or on one of the best if it was among the worst.

        Members are compared after as many steps as it took, since later ones release more. One
        whose step failed counts as the worst, and goes on from another if there is any.
        """
        member = self.members[number]
        step = member.n_steps
        judged = [each for each in self.members.values() if step in each.volumes]
        judged.sort(key=lambda each: each.volumes[step], reverse=True)
        n_replaced = max(1, int(len(judged) * self.population.replaced)) if judged[1:] else 0
        worst = judged[len(judged) - n_replaced :]
        if step in member.volumes and all(member is not each for each in worst):
            given = lineage_params(member.last.params, member.last.config)
            return self._step(number, member.last, given)
        best = [each.reached for each in judged[: max(1, n_replaced)]] or [member.reached]
        purpose = ("population", trial_id(self.ledger.results.n_asked))
        rng = np.random.default_rng(derive_seed(self.seed, *purpose))
        before = best[rng.integers(len(best))]
        if before is None:
            return self.new_lineage(number, member=number)
        return self._step(number, before, self._explored(before, rng))

    def _step(self, number: int, before: Proposal, given: Mapping[str, Any]) -> Proposal:
        """A branch at the end of a step with the parameters that are given, after that trial's."""
        cost, start = self.population.step_cost, before.config.sync.start_epoch

        def space(trial: Trial, base: TrainConfig) -> TrainConfig:
            config = self.further_stage(
                trial, base, epochs_of=lambda robust: start + epochs_for(cost, robust), spent=cost
            )
            return continued(config, before.config)

        return self.ledger.ask(space, self.base, fixed=given, member=number)

    def _explored(self, before: Proposal, rng: np.random.Generator) -> dict[str, Any]:
        """The parameters of a lineage that are given to the one that takes it over.

        The robust expert's attack, loss and optimizer may change while it is trained, but for the
        kinds of attack and optimizer. Those that are drawn anew are left to the sampler.
        """
        path = f"experts.{robust_of(before.config).name}."
        may_change = (f"{path}attack.", f"{path}loss", f"{path}optimizer.")
        distributions = self.ledger.results.trial(before.trial).distributions
        given = lineage_params(before.params, before.config)
        for name in [name for name in given if name.startswith(may_change)]:
            if rng.random() < self.population.resampled:
                del given[name]
            else:
                given[name] = moved(given[name], distributions[name], int(rng.choice([-1, 1])))
        return given
