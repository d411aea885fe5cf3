"""Multi-objective asynchronous successive halving: which trials are not worth their next epochs.

The stopping variant of ASHA (Li et al. 2020, arXiv 1810.05934) with the ranking of MO-ASHA
(Schmucker et al. 2021, arXiv 2106.12639): non-dominated sorting, ties by hypervolume contribution.
Objectives are maximised. There is nothing random in it and no framework.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from generalist_core.config import TrainConfig
from generalist_core.validation import require
from search.config import SuccessiveHalving
from search.front.front import hypervolume, non_dominated

Points = NDArray[np.float64]

BELOW_WORST = -0.1
"""The reference point in objectives normalised to [0, 1]: extremes, too, contribute something."""

SAME_CONTRIBUTION = 1e-12
"""Contributions that differ by less are ties, so that rounding decides nothing."""


def results(
    metrics: Mapping[str, float], config: TrainConfig, halving: SuccessiveHalving
) -> dict[str, list[float]]:
    """The rungs that an epoch of a training reports to, and its accuracies there.

    Before the first sync each expert has its own rungs, `robust@2` after two epochs; from then on
    the global learner has. What was not evaluated in every objective has none: so do natural
    experts, whose accuracy foretells nothing of a trial's front.
    """
    every = config.evaluation.every_epochs
    due = halving.reports(range(every, config.epochs, every), config.epochs)
    found = {}
    for learner in (*(expert.name for expert in config.experts), "global"):
        names = [f"accuracy/{learner}/{objective}" for objective in config.evaluation.objectives]
        epoch = epoch_of(learner, metrics)
        if epoch in due and all(name in metrics for name in names):
            found[f"{learner}@{due[epoch]}"] = [metrics[name] for name in names]
    return found


def epoch_of(learner: str, metrics: Mapping[str, float]) -> int:
    """The epochs that an expert has behind it, or for the global learner all experts."""
    return int(metrics.get(f"epoch/{learner}", metrics["epoch"]))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to stop a trial, and its place among `n_results` results; 1 is the best.

    `place` is None for a result that could not be ranked, such as one with a missing objective.
    """

    stop: bool
    place: int | None
    n_results: int


class Rungs:
    """The results that trials had at each rung, and what was decided on them."""

    def __init__(self, halving: SuccessiveHalving) -> None:
        self.halving = halving
        self._points: dict[str, dict[str, Points]] = {}
        self._decisions: dict[str, dict[str, Decision]] = {}

    def report(
        self, trial: str, rung: str, points: ArrayLike, *, unseen: Collection[str] = ()
    ) -> Decision:
        """Record what a trial released at a rung, and decide whether to stop it.

        A result with a value that is not finite, or without any point, is neither recorded nor
        decided on. What is reported again, as after a crash, gets the decision of the first time.

        Args:
            trial: its id.
            rung: its name, see `results`.
            points: the released points, (k, m), of which the best one counts.
            unseen: trials whose results this decision leaves out.
        """
        decisions = self._decisions.setdefault(rung, {})
        known = self._points.setdefault(rung, {})
        if trial in decisions:
            return decisions[trial]
        values = np.asarray(points, dtype=np.float64)
        if values.size == 0 or not np.isfinite(values).all():
            return Decision(stop=False, place=None, n_results=len(known))
        _require_alike(values, known)
        known[trial] = values[non_dominated(values)]
        seen = [points for other, points in known.items() if other == trial or other not in unseen]
        decisions[trial] = decide(seen, self.halving.eta)
        return decisions[trial]


def decide(results: Sequence[Points], eta: float) -> Decision:
    """What becomes of the last of a rung's results, each the points (k, m) of one trial.

    A trial is kept that holds the best value of an objective. Of several that share this value
    those are meant that no other dominates: where an objective is the same for all, such as the
    robust accuracy of natural experts, it protects nobody.
    """
    n_results = len(results)
    place, holds_a_best = _standing(results)
    weak = place > int(n_results / eta) and not holds_a_best
    return Decision(stop=n_results >= eta and weak, place=place, n_results=n_results)


def _standing(results: Sequence[Points]) -> tuple[int, bool]:
    """Place of the last result, equals sharing the better one, and whether it holds a best value.

    A trial is of the front of its best point. Raw values are sorted, as normalising them could make
    different ones equal.
    """
    pool, last = np.concatenate(results), len(results) - 1
    owners = np.repeat(np.arange(len(results)), [len(points) for points in results])
    fronts = moocore.pareto_rank(pool, maximise=True)
    best = np.full(len(results), len(pool))
    np.minimum.at(best, owners, fronts)
    in_front = fronts == best[last]
    worth = _contributions(_normalised(pool)[in_front], owners[in_front], len(results))
    ahead = (best < best[last]) | (worth > worth[last] + SAME_CONTRIBUTION)
    own = pool[(owners == last) & (fronts == 0)]
    return 1 + int(ahead.sum()), bool((own == pool.max(0)).any())


def _contributions(front: Points, owners: NDArray[np.int64], n_owners: int) -> Points:
    """The hypervolume that each owner's points add to a front together, (n_owners,)."""
    reference = [BELOW_WORST] * front.shape[1]
    whole = hypervolume(front, reference)
    worth = np.zeros(n_owners)
    for owner in np.unique(owners):
        worth[owner] = whole - hypervolume(front[owners != owner], reference)
    return worth


def _normalised(values: Points) -> Points:
    """Every objective moved and scaled to [0, 1]; one that is the same for all becomes 0."""
    low, span = values.min(0), np.ptp(values, axis=0)
    normalised: Points = (values - low) / np.where(span > 0, span, 1.0)
    return normalised


def _require_alike(values: Points, known: Mapping[str, Points]) -> None:
    n_objectives = {points.shape[1] for points in known.values()}
    require(
        values.ndim == 2 and n_objectives <= {values.shape[-1]},
        "points of shape (k, objectives), objectives as in the rung's other results",
        f"shape {values.shape}",
    )
