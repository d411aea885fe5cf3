"""How much each parameter contributes to the success of a training: conditional PED-ANOVA.

The fraction of the variance between the best trainings and all of them that a parameter explains
(Watanabe et al. 2023, arXiv 2304.10255; for parameters that only some trainings have, arXiv
2601.20800). A training counts once, by its best point, so the release ratio is not a parameter
of it. A training that was stopped early counts as one that did not reach the front.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.front.points import FrontPoint, values_of
from search.study.results import Results
from search.study.samplers import experimental

N_BEST = 5
"""Minimum number of best trainings, as Optuna's documentation recommends."""

N_REQUIRED = 20
"""Minimum number of trainings, so that the best quarter has `N_BEST`."""

BEST = 0.25
"""The fraction of trainings that count as the best; ties with the last of them are added."""

FRONT = "reaching the front"


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importance of each parameter for one target, or the reason why there is none.

    `n_trials` trainings count, `n_best` of them as the best; `n_with` is the number of trainings
    that have a parameter. Unless there is a `refusal`, `fractions` has all parameters and its sum
    is 1.
    """

    target: str
    n_trials: int
    n_best: int
    n_with: Mapping[str, int]
    fractions: Mapping[str, float]
    refusal: str | None = None


def importances(results: Results) -> list[Importance]:
    """The importances for reaching the front, then for the best value of each objective."""
    points, ended = results.points(), results.ended()
    completed = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    counting = [t for t in ended if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    given = [_importance(FRONT, counting, nearness(points, results.objectives))]
    for name in results.objectives:
        best: dict[str, float] = {}
        for point in points:
            best[point.trial] = max(best.get(point.trial, 0.0), point.accuracies[name])
        given.append(_importance(f"{name} accuracy", completed, best))
    return given


def nearness(points: Sequence[FrontPoint], objectives: Sequence[str]) -> dict[str, float]:
    """The nearness of each trial to the front: minus the non-domination rank of its best point."""
    if not points:
        return {}
    ranks = moocore.pareto_rank(values_of(points, objectives), maximise=True)
    near: dict[str, float] = {}
    for point, rank in zip(points, ranks, strict=True):
        near[point.trial] = max(near.get(point.trial, -math.inf), -float(rank))
    return near


def _importance(
    target: str, trials: Sequence[FrozenTrial], scores: Mapping[str, float]
) -> Importance:
    """The importance among `trials`; those without a score are worse than all that have one."""
    worst = min(scores.values(), default=0.0) - 1
    values = [scores.get(trial.user_attrs["trial"], worst) for trial in trials]
    are_best = best_of(values)
    names = dict.fromkeys(name for trial in trials for name in searched(trial.params))
    refusal = None
    if len(trials) < N_REQUIRED:
        refusal = f"at least {N_REQUIRED} trainings must count, but got {len(trials)}"
    elif sum(are_best) < N_BEST:
        refusal = f"at least {N_BEST} trainings must be among the best, but got {sum(are_best)}"
    fractions = {} if refusal else _fractions(trials, are_best)
    if not refusal and sum(fractions.values()) == 0:
        refusal = "no parameter varies"
    return Importance(
        target=target,
        n_trials=len(trials),
        n_best=sum(are_best),
        n_with={name: sum(name in trial.params for trial in trials) for name in names},
        fractions=fractions,
        refusal=refusal,
    )


def best_of(values: Sequence[float]) -> list[bool]:
    """Which values are in the best quarter or tie with the last value in it, but never all."""
    if not values:
        return []
    cutoff = sorted(values, reverse=True)[math.ceil(BEST * len(values)) - 1]
    worst = min(values)
    return [value >= cutoff and value > worst for value in values]


def _fractions(trials: Sequence[FrozenTrial], are_best: Sequence[bool]) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # slow

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler())
    ranges = _widest([trial.distributions for trial in trials])
    rows = []
    for trial, is_best in zip(trials, are_best, strict=True):
        params = searched(trial.params)
        within = {name: ranges.get(name, trial.distributions[name]) for name in params}
        rows.append(create_trial(params=params, distributions=within, value=float(is_best)))
    study.add_trials(rows)
    # Half a training less than the number of the best, so that rounding does not add one.
    evaluator = PedAnovaImportanceEvaluator(target_quantile=(sum(are_best) - 0.5) / len(trials))
    with experimental(), warnings.catch_warnings():
        # It warns about parameters that only one training has; `n_with` shows these.
        warnings.filterwarnings("ignore", message="Some regimes for parameter")
        return get_param_importances(study, evaluator=evaluator)


def searched(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a training, without the ratios at which it was released."""
    return {name: value for name, value in params.items() if not name.startswith("release_ratio.")}


def _widest(rows: Sequence[Mapping[str, BaseDistribution]]) -> dict[str, BaseDistribution]:
    """One range per parameter, so that a range that varies is not taken for several parameters."""
    seen: dict[str, list[BaseDistribution]] = {}
    for row in rows:
        for name, distribution in row.items():
            seen.setdefault(name, []).append(distribution)
    widest = {name: _union(distributions) for name, distributions in seen.items()}
    return {name: union for name, union in widest.items() if union is not None}


def _union(distributions: Sequence[Any]) -> BaseDistribution | None:
    """The distribution that contains all of them; None if they are of different kinds."""
    first = distributions[0]
    if any(type(other) is not type(first) for other in distributions):
        return None
    if isinstance(first, CategoricalDistribution):
        choices = dict.fromkeys(choice for d in distributions for choice in d.choices)
        return CategoricalDistribution(tuple(choices))
    assert isinstance(first, FloatDistribution | IntDistribution)
    if any((d.log, d.step) != (first.log, first.step) for d in distributions):
        return None
    low, high = min(d.low for d in distributions), max(d.high for d in distributions)
    if isinstance(first, IntDistribution):
        return IntDistribution(low, high, log=first.log, step=first.step)
    return FloatDistribution(low, high, log=first.log, step=first.step)
