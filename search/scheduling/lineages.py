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
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from generalist_core.config import ExpertConfig, TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.data.splits import Dataset
from generalist_core.training.cost import evaluation_cost, update_cost
from generalist_core.validation import InvalidConfigError
from search.config import Growing
from search.front.points import FrontPoint, by_trial
from search.scheduling.proposer import Proposer, SamplingProposer, Suggestion
from search.study.ledger import Ledger
from search.study.records import Proposal
from spaces import Space, Trial, base_suggestion, paper_suggestion
from spaces.lineages import LENGTH, START, lineage_params, robust_of
from spaces.release_ratio import ratio_params

Value = TypeVar("Value")

FEW_STEPS = 2
"""Steps of PGD, each as long as the radius, that train an expert about as robust as 10 do."""

LOW_BETA = 1.0
"""TRADES with this weight of its divergence gives up less natural accuracy than PGD training."""

FEWEST_POINTS = 3
"""Both experts and the sampled mixture: what every further branch releases.

A stage costs no less than they do.
"""


@dataclass(kw_only=True)
class Stage:
    """The branches that leave a lineage after `epochs` epochs.

    `volume` is the hypervolume of their points, None before any was released; `paid` says whether
    one of them made it grow beyond that of the other stages, or made the front grow.
    """

    epochs: int
    trials: list[str] = field(default_factory=list)
    points: list[FrontPoint] = field(default_factory=list)
    volume: float | None = None
    paid: bool = False


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


class WithLength:
    """A trial in which the lineage has the epochs that `epochs_of` its robust expert says."""

    def __init__(
        self, trial: Trial, base: TrainConfig, epochs_of: Callable[[ExpertConfig], int]
    ) -> None:
        self.trial = trial
        self.config = base
        self.epochs_of = epochs_of

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A suggestion of the trial's, or the given length."""
        if name == START:
            low = high = self.epochs_of(robust_of(self.config))
        return self._noted(name, self.trial.suggest_int(name, low, high, step=step, log=log))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A suggestion of the trial's."""
        return self._noted(name, self.trial.suggest_float(name, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """A suggestion of the trial's."""
        return self._noted(name, self.trial.suggest_categorical(name, choices))

    def _noted(self, name: str, value: Value) -> Value:
        with contextlib.suppress(InvalidConfigError):
            self.config = replace_at(self.config, name, value)
        return value


class LineageProposer(Proposer):
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
        super().__init__(ledger, space, base)
        self.point_cost = point_cost
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
        """The next branch: of a lineage that may grow, of the leading one, or of a new one."""
        chosen = None if self._is_beginning else self._to_grow() or self._to_branch()
        if chosen is None:
            fixed = {**self._alone, **ratio_params(1.0, 2)}
            return self._begin(self.ledger.ask(self._first_stage, self.base, fixed=fixed))
        lineage, epochs = chosen
        space = partial(self._further_stage, lineage, epochs)
        return self._begin(self.ledger.ask(space, self.base, fixed=lineage.params))

    @property
    def _alone(self) -> dict[str, Any]:
        """The parameters of the shortest branch, which says nothing but how good its lineage is."""
        return {LENGTH: 1, f"experts.{robust_of(self.base).name}.rests": True}

    def _first_stage(self, trial: Trial, base: TrainConfig) -> TrainConfig:
        """The space, where the lineage has the epochs of a first stage and is released alone."""
        cost = self.growing.first_cost
        paid_for = WithLength(trial, base, lambda robust: max(1, round(cost / update_cost(robust))))
        config = self.space(paid_for, base)
        alone = replace(config.evaluation, release_ratios=(1.0,), n_refinements=0)
        return replace(config, evaluation=alone)

    def _further_stage(
        self, lineage: Lineage, epochs: int, trial: Trial, base: TrainConfig
    ) -> TrainConfig:
        """The space, where the lineage has these epochs.

        The curve is refined as far as that costs no more than half of what the stage did.
        """
        config = self.space(WithLength(trial, base, lambda _: epochs), base)
        before = max((s.epochs for s in lineage.stages if s.epochs < epochs), default=0)
        n_points = int((epochs - before) * lineage.cost / (2 * self.point_cost))
        n_refinements = min(max(n_points - FEWEST_POINTS, 0), config.evaluation.n_refinements)
        fine = replace(config.evaluation, n_refinements=n_refinements)
        return replace(config, evaluation=fine)

    def first(self) -> list[Suggestion]:
        """The robust experts of the base, of it with few attack steps, on TRADES, and of the paper.

        Each is released alone, so the first one is plain adversarial training.
        """
        path = f"experts.{robust_of(self.base).name}"
        trades = replace_at(self.base, f"{path}.loss", {"type": "TRADES", "beta": LOW_BETA})
        (base, _), (gentle, _) = (base_suggestion(self.space, c) for c in (self.base, trades))
        paper, _ = paper_suggestion(self.space, self.base)
        few = {f"{path}.attack.steps": FEW_STEPS}
        cheap, gentle = ({**p, **few} if few.keys() <= p.keys() else p for p in (base, gentle))
        different: list[dict[str, Any]] = []
        for suggested in (base, cheap, gentle, paper):
            wanted = {name: self._alone.get(name, value) for name, value in suggested.items()}
            wanted.pop(START, None)
            different += [wanted] if wanted not in different else []
        return [(wanted, 1.0) for wanted in different]

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
            cost = max(cost * self.growing.growth, cost + FEWEST_POINTS * self.point_cost)
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


def has_lineages(space: Space, base: TrainConfig) -> bool:
    """Whether a space asks for the length of a branch."""
    return LENGTH in base_suggestion(space, base)[0]


def build_proposer(
    ledger: Ledger,
    space: Space,
    base: TrainConfig,
    growing: Growing,
    data: Callable[[], Dataset],
) -> Proposer:
    """The proposer that the space is made for; only for lineages is the `data` called for."""
    if has_lineages(space, base):
        images = data()
        n_judged = len(images.validation)
        n_images = min(base.evaluation.n_images or n_judged, n_judged)
        cost = evaluation_cost(base.evaluation) * n_images / len(images.train)
        return LineageProposer(ledger, space, base, growing, cost)
    return SamplingProposer(ledger, space, base)
