"""What to run next in a space with lineages: they grow stage by stage, and branches leave them.

A new lineage is trained for its first stage. By asynchronous successive halving with promotions
(Li et al. 2020, arXiv 1810.05934) the best lineages of a stage grow to the next one; there is no
last stage. Stages but the first end at equal costs, so that cheap attacks get more epochs. A
lineage rests, and others go on, if its last stages neither did better than those before nor made
the front grow. The best one goes on as soon as the others together have cost as much, so at most
half of the compute goes into what does not better it. Each trial is a branch at the end of a stage,
so all stages yield operating points. A stage whose branch fails is tried again with another branch,
as the failure may be that of the natural expert.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict
from generalist_core.config.mixing import vertex
from generalist_core.training.cost import update_cost
from search.config import Growing
from search.front.points import FrontPoint, by_trial
from search.scheduling.branching import BranchingProposer
from search.study.ledger import Ledger
from search.study.records import ExhaustedError, Proposal
from spaces import Space
from spaces.lineages import lineage_params, robust_of


@dataclass(kw_only=True)
class Stage:
    """The branches that leave a lineage after `epochs` epochs.

    `volume` is the hypervolume of their points, None before any was released; `paid` says whether
    one of them made it grow beyond that of the other stages, or made the front grow; `alone` says
    whether the lineage's own expert, unchanged by a branch, is one of the points.
    """

    epochs: int
    trials: list[str] = field(default_factory=list)
    points: list[FrontPoint] = field(default_factory=list)
    volume: float | None = None
    paid: bool = False
    alone: bool = False


@dataclass(kw_only=True)
class Lineage:
    """A robust expert by its parameters, and its stages; `cost` is that of an image in training."""

    params: dict[str, Any]
    cost: int
    stages: list[Stage] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The hypervolume of its best stage, 0 before any was judged."""
        return max((stage.volume or 0.0 for stage in self.stages), default=0.0)

    @property
    def n_in_vain(self) -> int:
        """How many of the last stages did not pay; the first does not count."""
        judged = [stage for stage in self.stages[1:] if stage.volume is not None]
        paid = [number for number, stage in enumerate(judged, 1) if stage.paid]
        return len(judged) - max(paid, default=0)


class LineageProposer(BranchingProposer):
    """Grows lineages, and begins new ones when none may grow."""

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        base: TrainConfig,
        growing: Growing,
        point_cost: float,
    ) -> None:
        """Begin, or continue from what the ledger has proposed and been told.

        `point_cost` is what an operating point costs, in forward images per training image.
        """
        super().__init__(ledger, space, base, first_cost=growing.first_cost, point_cost=point_cost)
        self.growing = growing
        self.lineages: list[Lineage] = []
        self.stage_of: dict[str, tuple[Lineage, Stage]] = {}
        self.hypervolume = 0.0
        results = ledger.results
        for proposal in results.proposals():
            self._begin(proposal)
        released = by_trial(results.points())
        for growth in results.history():
            if growth.trial in released:
                self._completed(growth.trial, released[growth.trial], growth.hypervolume)

    def propose(self) -> Proposal:
        """The next branch: of a lineage that may grow, of the leading one, or of a new one.

        In a small space there may be none of a kind that was not tried, and the next kind is taken.
        """
        grow, branch = (partial(self._from, choose) for choose in (self._to_grow, self._to_branch))
        begins = self._is_beginning
        new = partial(self.new_lineage, len(self.lineages))
        ways = (new, grow, branch) if begins else (grow, branch, new)
        for way in ways:
            with contextlib.suppress(ExhaustedError):
                if (proposal := way()) is not None:
                    return self._begin(proposal)
        raise ExhaustedError("all lineages of the space were begun, and none of them may grow")

    def _from(self, choose: Callable[[], tuple[Lineage, int] | None]) -> Proposal | None:
        """A branch of the lineage and stage that are chosen; None if none is."""
        chosen = choose() if self.lineages else None
        if chosen is None:
            return None
        lineage, epochs = chosen
        before = max((s.epochs for s in lineage.stages if s.epochs < epochs), default=0)
        space = partial(
            self.further_stage,
            epochs_of=lambda _: epochs,
            spent=(epochs - before) * lineage.cost,
            is_known=any(stage.alone for stage in lineage.stages if stage.epochs == epochs),
        )
        return self.ledger.ask(space, self.base, fixed=lineage.params)

    def completed(self, trial: str) -> None:
        """Take in the points of a trial, and whether they made the front grow."""
        results = self.ledger.results
        points = [point for point in results.points() if point.trial == trial]
        self._completed(trial, points, results.front().hypervolume)

    @property
    def _is_beginning(self) -> bool:
        first = sum(len(lineage.stages[0].trials) for lineage in self.lineages)
        return bool(self.ledger.sampling.enqueued) or first < self.growing.n_first

    def _begin(self, proposal: Proposal) -> Proposal:
        params = lineage_params(proposal.params, proposal.config)
        lineage = next((known for known in self.lineages if known.params == params), None)
        if lineage is None:
            lineage = Lineage(params=params, cost=update_cost(robust_of(proposal.config)))
            self.lineages.append(lineage)
        epochs = proposal.config.sync.start_epoch
        stage = next((known for known in lineage.stages if known.epochs == epochs), None)
        if stage is None:
            stage = Stage(epochs=epochs)
            lineage.stages = sorted([*lineage.stages, stage], key=lambda stage: stage.epochs)
        stage.trials.append(proposal.trial)
        self.stage_of[proposal.trial] = (lineage, stage)
        return proposal

    def _completed(self, trial: str, points: Sequence[FrontPoint], volume: float) -> None:
        lineage, stage = self.stage_of[trial]
        stage.points += points
        stage.alone |= _have_lineage_alone(points)
        stage.volume = self.ledger.results.goals.front_of(stage.points).hypervolume
        reached = [s.volume for s in lineage.stages if s.volume is not None and s is not stage]
        pairs = ((volume, self.hypervolume), (stage.volume, max(reached, default=0.0)))
        stage.paid |= any(now > (1 + self.growing.min_growth) * before for now, before in pairs)
        self.hypervolume = volume

    def _to_grow(self) -> tuple[Lineage, int] | None:
        """A lineage that is among the best of its last stage, of the latest stage that has one.

        If there is none, the best of the latest stage goes on. One that rests makes room in the
        first stage; in later ones it is the measure of others.
        """
        n_stages, leader = max(len(lineage.stages) for lineage in self.lineages), self._leader
        for fewest, number in itertools.product((0, 1), reversed(range(n_stages))):
            there = [lineage for lineage in self.lineages if len(lineage.stages) > number]
            judged = [
                lineage
                for lineage in there
                if lineage.stages[number].volume is not None
                and (number > 0 or not self._rests(lineage, leader))
            ]
            n_needed = min(self.growing.n_first, len(self.lineages))
            if number == 0 and sum(map(self._has_begun, there)) < n_needed:
                return None
            judged.sort(key=lambda lineage: lineage.stages[number].volume or 0.0, reverse=True)
            for lineage in judged[: max(fewest, int(len(judged) / self.growing.eta))]:
                further = lineage.stages[number + 1 :]
                if not self._rests(lineage, leader) and all(map(self._is_due, further)):
                    epochs = further[0].epochs if further else self._next_epochs(lineage)
                    return lineage, epochs
        return None

    def _rests(self, lineage: Lineage, leader: Lineage) -> bool:
        """Whether its last stages were in vain; a leader goes on when others cost as much."""
        if lineage.n_in_vain < self.growing.patience or len(self.lineages) == 1:
            return False
        if lineage is not leader:
            return True
        others = sum(self._spent(other) for other in self.lineages if other is not leader)
        return self._spent(leader) > others

    @property
    def _leader(self) -> Lineage:
        """The lineage of the best stage."""
        return max(self.lineages, key=lambda lineage: lineage.best)

    def _spent(self, lineage: Lineage) -> float:
        """What a lineage and its operating points cost, in forward images per training image."""
        n_points = sum(len(stage.points) for stage in lineage.stages)
        return lineage.stages[-1].epochs * lineage.cost + n_points * self.point_cost

    def _is_due(self, stage: Stage) -> bool:
        """Whether all branches of a stage have failed, but not often enough to give it up."""
        have_failed = stage.volume is None and all(map(self.ledger.results.has_ended, stage.trials))
        return have_failed and len(stage.trials) < self.growing.patience

    def _has_begun(self, lineage: Lineage) -> bool:
        """Whether a trial of the first stage has ended, in whatever way."""
        return any(self.ledger.results.has_ended(trial) for trial in lineage.stages[0].trials)

    def _next_epochs(self, lineage: Lineage) -> int:
        """The end of the next stage: where its cost is due, at least one epoch on."""
        cost = self.growing.second_cost
        for _ in lineage.stages[1:]:
            cost = max(cost * self.growing.growth, cost + self.fewest_points * self.point_cost)
        return max(lineage.stages[-1].epochs + 1, round(cost / lineage.cost))

    def _to_branch(self) -> tuple[Lineage, int] | None:
        """The best stage of all, until it has had its share of further branches.

        There are at most as many of these as of further lineages.
        """
        stages = [stage for lineage in self.lineages for stage in lineage.stages]
        n_further = sum(len(stage.trials) for stage in stages) - len(stages)
        best = max(self._leader.stages, key=lambda stage: stage.volume or 0.0)
        may_branch = best.volume is not None and len(best.trials) <= self.growing.patience
        if not may_branch or n_further > len(self.lineages) - self.growing.n_first:
            return None
        return self._leader, best.epochs


def _have_lineage_alone(points: Sequence[FrontPoint]) -> bool:
    """Whether one of a trial's points is its lineage's expert, which rested in the branch."""
    config = from_dict(points[0].config, TrainConfig)
    robust = robust_of(config)
    alone = vertex(config.experts.index(robust), len(config.experts))
    return robust.rests and alone in [point.mixing_ratio for point in points]
