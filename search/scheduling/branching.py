"""What all searches of a space with lineages have in common: first stages, and branches after them.

A new lineage is trained for a first stage, after which the robust expert alone is released. Each
further trial is a branch that leaves a lineage, new or grown. What is tried when is left to
subclasses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from generalist_core.config import ExpertConfig, Ratio, TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.mixing import vertex
from generalist_core.training.cost import update_cost
from search.scheduling.proposer import Proposer, Suggestion
from search.study.ledger import Ledger
from search.study.records import ExhaustedError, Proposal
from spaces import Space, Trial, base_suggestion, paper_suggestion
from spaces.lineages import (
    LENGTH,
    LINEAGE,
    START,
    WithLength,
    begins_as,
    robust_experts,
    robust_of,
)
from spaces.release_ratio import ratio_params

FEW_STEPS = 2
"""Steps of PGD, each as long as the radius, that train an expert about as robust as 10 do."""

LOW_BETA = 1.0
"""TRADES with this weight of its divergence gives up less natural accuracy than PGD training."""


class BranchingProposer(Proposer):
    """Begins lineages, and makes branches of them."""

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        base: TrainConfig,
        *,
        first_cost: float,
        point_cost: float,
        most: int | None = None,
    ) -> None:
        """A first stage ends after `first_cost`, and an operating point costs `point_cost`.

        Both are in forward images per training image. At most so many lineages are tried before any
        that the sampler suggests.
        """
        super().__init__(ledger, space, base)
        self.first_cost, self.point_cost, self.most = first_cost, point_cost, most
        chooses = LINEAGE in base_suggestion(space, base)[0]
        self.robust = robust_experts(base) if chooses else (robust_of(base),)
        # what every further branch releases: all experts and the sampled mixture
        self.fewest_points = len(base.experts) + 1

    def first(self) -> list[Suggestion]:
        """The robust experts of the base, with few attack steps, one on TRADES, and the paper's.

        Each is released alone, so the first one is plain adversarial training.
        """
        names = [robust.name for robust in self.robust]
        bases = {name: begins_as(self.base, name) for name in names}
        loss = {"type": "TRADES", "beta": LOW_BETA}
        trades = replace_at(bases[names[0]], f"experts.{names[0]}.loss", loss)
        plain = {name: base_suggestion(self.space, base)[0] for name, base in bases.items()}
        gentle, _ = base_suggestion(self.space, trades)
        paper, _ = paper_suggestion(self.space, bases[names[0]])
        suggested = [
            *plain.items(),
            *((name, _with_few_steps(params, name)) for name, params in plain.items()),
            (names[0], _with_few_steps(gentle, names[0])),
            (paper.get(LINEAGE, names[0]), paper),
        ]
        different: list[Suggestion] = []
        for expert, params in suggested:
            wanted = {name: self._alone.get(name, value) for name, value in params.items()}
            wanted.pop(START, None)
            suggestion = wanted, self._vertex(expert)
            different += [suggestion] if suggestion not in different else []
        return different[: self.most]

    def new_lineage(self, n_begun: int, *, member: int | None = None) -> Proposal:
        """The first branch of a new lineage, of each norm in turn as far as it has untried ones."""
        n_experts = len(self.base.experts)
        for n in range(n_begun, n_begun + len(self.robust)):
            name = self.robust[n % len(self.robust)].name
            ratio = ratio_params(self._vertex(name), n_experts)
            with contextlib.suppress(ExhaustedError):
                fixed = {LINEAGE: name, **self._alone, **ratio}
                return self.ledger.ask(self._first_stage, self.base, fixed=fixed, member=member)
        raise ExhaustedError("all lineages of the space were begun")

    def further_stage(
        self,
        trial: Trial,
        base: TrainConfig,
        *,
        epochs_of: Callable[[ExpertConfig], int],
        spent: float,
        is_known: bool = False,
    ) -> TrainConfig:
        """The space, where the lineage has these epochs, the last of which cost what was `spent`.

        The curve is refined as far as that costs no more than half of it. If the lineage `is_known`
        as it is after these epochs, its expert is not judged again where it rests.
        """
        config = self.space(WithLength(trial, base, epochs_of), base)
        ratios = config.evaluation.release_ratios
        if robust_of(config).rests and is_known:
            ratios = tuple(ratio for ratio in ratios if ratio != self._vertex(config.lineage))
        n_points = int(spent / (2 * self.point_cost))
        n_refinements = min(max(n_points - self.fewest_points, 0), config.evaluation.n_refinements)
        fine = replace(config.evaluation, release_ratios=ratios, n_refinements=n_refinements)
        return replace(config, evaluation=fine)

    def _first_stage(self, trial: Trial, base: TrainConfig) -> TrainConfig:
        """The space, where the lineage has the epochs of a first stage and is released alone.

        Of the others the one with the cheapest steps is trained, as not all experts may rest.
        """
        paid_for = WithLength(trial, base, partial(epochs_for, self.first_cost))
        config = self.space(paid_for, base)
        ratio = self._vertex(config.lineage)
        alone = replace(config.evaluation, release_ratios=(ratio,), n_refinements=0)
        others = [expert for expert in config.experts if expert.name != config.lineage]
        trained = min(others, key=update_cost)
        experts = tuple(replace(expert, rests=expert is not trained) for expert in config.experts)
        return replace(config, evaluation=alone, experts=experts)

    @property
    def _alone(self) -> dict[str, Any]:
        """The parameters of the shortest branch, which says nothing but how good its lineage is."""
        return {LENGTH: 1, **{f"experts.{robust.name}.rests": True for robust in self.robust}}

    def _vertex(self, expert: str) -> Ratio:
        """The ratio of the expert of that name alone."""
        names = [known.name for known in self.base.experts]
        return vertex(names.index(expert), len(names))


def epochs_for(cost: float, robust: ExpertConfig) -> int:
    """The epochs of an expert that cost about so many forward images per training image."""
    return max(1, round(cost / update_cost(robust)))


def _with_few_steps(params: dict[str, Any], expert: str) -> dict[str, Any]:
    """The parameters, with few steps where the space asks for the expert's."""
    names = (f"experts.{expert}.attack.steps", f"experts.{expert}.attack.parts.0.steps")
    return {name: FEW_STEPS if name in names else value for name, value in params.items()}
