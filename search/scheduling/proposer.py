"""What to run next: a new trial, or another co-training branch on a warm-up that paid.

Trials that differ only in what happens from the first sync on share the warm-ups of their experts:
they are the branches of one family. A family may have a few branches at first, and more for each
branch that made the front grow. A new trial can always be proposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from generalist_core.config import TrainConfig
from search.config import Branching
from search.front.front import Front
from search.study.ledger import Ledger
from search.study.records import Proposal
from spaces import Space, base_suggestion, paper_suggestion

COTRAINING = ("mixing.ratio.", "sync.", "release_ratio.")
"""Prefixes of parameters that do not change warm-ups, if the mixing ratio is constant in them.

The last one does not change the training at all: a family that varies nothing else has no branches.
"""


@dataclass(kw_only=True)
class Family:
    """The trials on one warm-up: how many were proposed, which completed, and how many paid."""

    params: dict[str, Any]
    varies: bool = True
    n_proposed: int = 1
    completed: list[str] = field(default_factory=list)
    n_paid: int = 0

    def is_open(self, branching: Branching) -> bool:
        """Whether another branch may be proposed: the warm-up exists, and the allowance is left."""
        allowance = branching.first + branching.more * self.n_paid
        return bool(self.completed) and self.n_proposed < allowance


class Proposer:
    """Asks the ledger for proposals; without `branching` the sampler suggests all of them."""

    def __init__(
        self, ledger: Ledger, space: Space, base: TrainConfig, branching: Branching | None = None
    ) -> None:
        self.ledger = ledger
        self.space = space
        self.base = base
        self.branching = branching
        self.families: list[Family] = []
        self.family_of: dict[str, Family] = {}
        self.hypervolume = 0.0
        self.n_branches = 0
        self._restore()

    def propose(self) -> Proposal:
        """The next trial: a branch of the open family that adds most to the front, or a new one."""
        family = self._best_open()
        fixed = family.params if family is not None else None
        return self._begin(self.ledger.ask(self.space, self.base, fixed=fixed))

    def completed(self, trial: str) -> None:
        """Take in that a trial has released its points, and whether they made the front grow."""
        self._completed(trial, self.ledger.results.front().hypervolume)

    def _completed(self, trial: str, hypervolume: float) -> None:
        family = self.family_of[trial]
        family.completed.append(trial)
        growth = self.branching.min_growth if self.branching is not None else 0.0
        family.n_paid += hypervolume > self.hypervolume * (1 + growth)
        self.hypervolume = hypervolume

    def _restore(self) -> None:
        """Take in what the ledger has proposed before, and its results."""
        for proposal in self.ledger.results.proposals():
            self._begin(proposal)
        completed = {point.trial for point in self.ledger.results.points()}
        for growth in self.ledger.results.history():
            if growth.trial in completed:
                self._completed(growth.trial, growth.hypervolume)

    def _begin(self, proposal: Proposal) -> Proposal:
        params = warmup_params(proposal.params)
        known = next((family for family in self.families if family.params == params), None)
        if known is None:
            cotrained = [name for name in proposal.params if name.startswith(COTRAINING[:2])]
            known = Family(params=params, varies=bool(params and cotrained))
            self.families.append(known)
        else:
            known.n_proposed += 1
            self.n_branches += 1
        self.family_of[proposal.trial] = known
        return proposal

    def _best_open(self) -> Family | None:
        if self.branching is None or self.ledger.sampling.enqueued:
            return None
        if self.n_branches >= self.branching.most * self.ledger.results.n_asked:
            return None
        candidates = [f for f in self.families if f.varies and f.is_open(self.branching)]
        return max(candidates, key=self._contribution, default=None)

    def _contribution(self, family: Family) -> float:
        """The hypervolume that the front would lose without the points of a family."""
        front = self.ledger.results.front()
        others = [point for point in front.points if point.trial not in family.completed]
        without = Front.of(others, front.objectives, front.reference)
        return front.hypervolume - without.hypervolume


def enqueue_first(ledger: Ledger, space: Space, base: TrainConfig) -> None:
    """Enqueue the setting of the paper and then that of `base`, unless they were asked before."""
    first, second = (make(space, base) for make in (paper_suggestion, base_suggestion))
    suggestions = [first] if first == second else [first, second]
    for params, ratio in suggestions[ledger.results.n_asked :]:
        ledger.enqueue(params, ratio, len(base.experts))


def warmup_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that the branches of a family share."""
    return {name: value for name, value in params.items() if not name.startswith(COTRAINING)}
