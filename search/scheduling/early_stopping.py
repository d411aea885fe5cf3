"""Multi-objective asynchronous successive halving: which trials to stop early.

This is the stopping variant of ASHA (Li et al. 2020, arXiv 1810.05934) with the ranking of MO-ASHA
(Schmucker et al. 2021, arXiv 2106.12639): non-dominated sorting, with ties broken by the
hypervolume contribution. Objectives are maximised. Nothing is random.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from generalist_core.config import TrainConfig
from generalist_core.validation import InvalidConfigError
from search.config import SuccessiveHalving
from search.front.front import hypervolume, non_dominated

Points = NDArray[np.float64]

BELOW_WORST = -0.1
"""The reference point in normalised objectives; below 0, so that extremes contribute as well."""

SAME_CONTRIBUTION = 1e-12
"""Contributions that differ by less are tied, so that rounding decides nothing."""


def rung_results(
    metrics: Mapping[str, float], config: TrainConfig, halving: SuccessiveHalving
) -> dict[str, list[float]]:
    """The rungs that an epoch of a training reports to, with its accuracies there.

    Before the first sync each expert has its own rungs, such as `robust@2` after two epochs; from
    then on the global learner has rungs. A learner that was not evaluated in every objective
    reports to none. Natural experts are such learners, because their accuracy predicts nothing
    about the front of a trial.
    """
    every = config.evaluation.every_epochs
    due = halving.reports(range(every, config.epochs, every), config.epochs)
    accuracies = {}
    for learner in (*(expert.name for expert in config.experts), "global"):
        names = [
            f"accuracy/{learner}/{objective}" for objective in config.evaluation.objective_names
        ]
        epoch = epoch_of(learner, metrics)
        if epoch in due and all(name in metrics for name in names):
            accuracies[f"{learner}@{due[epoch]}"] = [metrics[name] for name in names]
    return accuracies


def epoch_of(learner: str, metrics: Mapping[str, float]) -> int:
    """The epochs that an expert was trained; for the global learner, that all experts were."""
    return int(metrics.get(f"epoch/{learner}", metrics["epoch"]))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to stop a trial, and its place among `n_results` results, where 1 is the best.

    `place` is None for a result that cannot be ranked, such as one with a missing objective.
    """

    stop: bool
    place: int | None
    n_results: int


class Rungs:
    """The results of trials at each rung, and the decisions on them."""

    def __init__(self, halving: SuccessiveHalving) -> None:
        self.halving = halving
        self._points: dict[str, dict[str, Points]] = {}
        self._decisions: dict[str, dict[str, Decision]] = {}

    def report(
        self, trial: str, rung: str, points: ArrayLike, *, unseen: Collection[str] = ()
    ) -> Decision:
        """Record the result of a trial at a rung, and decide whether to stop the trial.

        A result without points, or with a value that is not finite, is not recorded, and does not
        stop the trial. A result that is reported again, as after a crash, gets its first decision.

        Args:
            trial: the id of the trial.
            rung: the name of the rung, see `rung_results`.
            points: the released points, (k, m), of which the best one counts.
            unseen: trials whose results this decision leaves out.

        Raises:
            InvalidConfigError: the points do not have the shape (k, m) with the rung's m.
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
        compared = [known[other] for other in known if other == trial or other not in unseen]
        decisions[trial] = decide(compared, self.halving.eta)
        return decisions[trial]


def decide(results: Sequence[Points], eta: float) -> Decision:
    """The decision on the last of a rung's results, each of them the points (k, m) of one trial.

    A trial that holds the best value of an objective is kept. If several trials share this value,
    only those hold it that no other dominates. So an objective with the same value for all, such as
    the robust accuracy of natural experts, keeps no trial.
    """
    n_results = len(results)
    place, holds_a_best = _standing(results)
    weak = place > int(n_results / eta) and not holds_a_best
    return Decision(stop=n_results >= eta and weak, place=place, n_results=n_results)


def _standing(results: Sequence[Points]) -> tuple[int, bool]:
    """The place of the last result, where equal results share one, and if it holds a best value.

    A trial belongs to the front of its best point. Raw values are sorted, because normalisation
    could make different ones equal.
    """
    pool, last = np.concatenate(results), len(results) - 1
    owners = np.repeat(np.arange(len(results)), [len(points) for points in results])
    fronts = moocore.pareto_rank(pool, maximise=True)
    best = np.full(len(results), len(pool))
    np.minimum.at(best, owners, fronts)
    in_front = fronts == best[last]
    gains = _contributions(_normalised(pool)[in_front], owners[in_front], len(results))
    ahead = (best < best[last]) | (gains > gains[last] + SAME_CONTRIBUTION)
    undominated = pool[(owners == last) & (fronts == 0)]
    return 1 + int(ahead.sum()), bool((undominated == pool.max(0)).any())


def _contributions(front: Points, owners: NDArray[np.int64], n_owners: int) -> Points:
    """The hypervolume that the points of each owner add to a front, (n_owners,)."""
    reference = [BELOW_WORST] * front.shape[1]
    whole = hypervolume(front, reference)
    gains = np.zeros(n_owners)
    for owner in np.unique(owners):
        gains[owner] = whole - hypervolume(front[owners != owner], reference)
    return gains


def _normalised(values: Points) -> Points:
    """Every objective shifted and scaled to [0, 1]; one with the same value for all becomes 0."""
    low, span = values.min(0), np.ptp(values, axis=0)
    normalised: Points = (values - low) / np.where(span > 0, span, 1.0)
    return normalised


def _require_alike(values: Points, known: Mapping[str, Points]) -> None:
    n_objectives = {points.shape[1] for points in known.values()}
    if values.ndim != 2 or not n_objectives <= {values.shape[1]}:
        raise InvalidConfigError(
            "The points must have shape (k, m), with m objectives as in the other results of the "
            f"rung, but got shape {values.shape}."
        )
