"""The trials of a sweep's study as Optuna stores them, written and read.

What Optuna has no field for is stored in the attributes of a trial. One that was asked has its id
`trial`, `asked_after` (how many trials had ended by then), its `config` and its `mixing_ratio`.
One of a population has its `member`. Once it has ended it also has `told_as` (how many had ended
before it), its `cost`, and how it ended. A `sibling` holds another mixture of a trial. An
observation made elsewhere has an `origin`. The `points` of a completed trial are all that it
released, and alone hold its global learner.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from generalist_core.config import Ratio, TrainConfig
from generalist_core.config.codec import from_dict
from generalist_core.config.mixing import GLOBAL, as_ratio
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.validation import InvalidConfigError
from search.config import Floor
from search.errors import SweepFolderError
from search.front.front import Front
from search.front.points import FrontPoint, by_trial, points_from_dicts
from search.study.failures import Failure
from search.study.records import Growth, Observation, Proposal, State, TrialRecord
from spaces import Space
from spaces.protocol import configuration_of
from spaces.release_ratio import ratio_params, suggest_ratio

STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
    TrialState.WAITING: "unfinished",
}


@dataclass(frozen=True, kw_only=True)
class Goals:
    """The objectives of a sweep, in their order, and the floors of some of them."""

    objectives: tuple[str, ...]
    floors: tuple[Floor, ...] = ()

    @property
    def reference(self) -> tuple[float, ...]:
        """The reference point of the hypervolume: each objective's floor, or 0 if it has none."""
        floors = {floor.objective: floor.accuracy for floor in self.floors}
        return tuple(floors.get(name, 0.0) for name in self.objectives)

    def values(self, accuracies: Mapping[str, float]) -> list[float]:
        """The accuracies in the order of the objectives."""
        return [accuracies[name] for name in self.objectives]

    def accuracies(self, trial: FrozenTrial) -> dict[str, float]:
        """The accuracies of a completed trial, by objective."""
        return dict(zip(self.objectives, trial.values, strict=True))

    def violations(self, accuracies: Mapping[str, float]) -> dict[str, float]:
        """How far each floor is missed; 0 or less if it is reached."""
        return {f.objective: f.accuracy - accuracies[f.objective] for f in self.floors}

    def front_of(self, points: Sequence[FrontPoint]) -> Front:
        """The front of these points; its hypervolume is that above the floors."""
        return Front.of(points, self.objectives, self.reference)

    def completed(
        self,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        accuracies: Mapping[str, float],
        attributes: Mapping[str, Any] | None = None,
    ) -> FrozenTrial:
        """A completed trial with these parameters and accuracies."""
        return create_trial(
            params=dict(params),
            distributions=dict(distributions),
            values=self.values(accuracies),
            user_attrs=dict(attributes or {}),
            constraints=self.violations(accuracies),
        )


def name_of(trial: FrozenTrial) -> str | None:
    """The id of a trial that was asked; None for siblings and observations.

    Raises:
        SweepFolderError: it is not an id that a sweep gives.
    """
    name = trial.user_attrs.get("trial")
    if name is None:
        return None
    if not (isinstance(name, str) and name.isascii() and name.isdigit()):
        raise SweepFolderError(f"The id of a trial must be a number, but the study has {name!r}.")
    return None if "sibling" in trial.user_attrs else name


def as_running(trial: FrozenTrial, attributes: Mapping[str, Any] | None = None) -> FrozenTrial:
    """A running trial with the parameters of `trial`."""
    return create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=dict(attributes or {}),
        system_attrs=trial.system_attrs,
    )


def proposal_of(trial: FrozenTrial) -> Proposal:
    """The proposal that a trial was asked for.

    Raises:
        KeyError: an attribute is missing.
        InvalidConfigError: the configuration is invalid.
    """
    return Proposal(
        trial=trial.user_attrs["trial"],
        config=from_dict(trial.user_attrs["config"], TrainConfig),
        mixing_ratio=as_ratio(trial.user_attrs["mixing_ratio"]),
        params=trial.params,
        member=trial.user_attrs.get("member"),
    )


def failure_of(trial: FrozenTrial) -> Failure:
    """Why a failed trial failed."""
    return Failure(**trial.user_attrs["failure"])


def is_lasting_failure(trial: FrozenTrial) -> bool:
    """Whether a trial failed, and would fail again."""
    return trial.state == TrialState.FAIL and failure_of(trial).is_lasting


def record_of(trial: FrozenTrial) -> TrialRecord:
    """The record of a trial that was asked."""
    attributes, state = trial.user_attrs, STATES[trial.state]
    return TrialRecord(
        trial=attributes["trial"],
        state=state,
        is_given="fixed_params" in trial.system_attrs,
        asked_after=attributes["asked_after"],
        params=trial.params,
        config=attributes.get("config"),
        cost=attributes["cost"] if trial.state.is_finished() else {},
        stopped_at=attributes["stopped_at"] if state == "stopped early" else None,
        failure=failure_of(trial) if state == "failed" else None,
        member=attributes.get("member"),
    )


def point_of(trial: FrozenTrial, config: Mapping[str, Any], goals: Goals) -> FrontPoint:
    """The operating point of a completed trial or sibling; `config` is that of the trial."""
    attributes = trial.user_attrs
    return FrontPoint(
        trial=attributes["trial"],
        mixing_ratio=as_ratio(attributes["mixing_ratio"]),
        accuracies=goals.accuracies(trial),
        n_images=attributes["n_images"],
        epoch=attributes["epoch"],
        config=config,
    )


def points_of(trial: FrozenTrial, config: Mapping[str, Any], goals: Goals) -> list[FrontPoint]:
    """The operating point of a completed trial or sibling, and the global learner's beside it.

    The global learner has no ratio, so that it is no observation: it stands among the `points` of
    the trial that was asked, and nowhere else.
    """
    released = points_from_dicts(trial.user_attrs.get("points", ()))
    learners = [
        FrontPoint(
            trial=trial.user_attrs["trial"],
            mixing_ratio=GLOBAL,
            accuracies={name: point.accuracies[name] for name in goals.objectives},
            n_images=point.n_images,
            epoch=point.epoch,
            config=config,
        )
        for point in released
        if point.mixing_ratio == GLOBAL
    ]
    return [point_of(trial, config, goals), *learners]


def missing_siblings(
    asked: FrozenTrial, later: Iterable[FrozenTrial], goals: Goals
) -> list[FrozenTrial]:
    """The siblings of a completed trial that the study lacks: none is among the `later` trials."""
    present: set[Ratio] = {
        as_ratio(trial.user_attrs["mixing_ratio"])
        for trial in (asked, *later)
        if trial.user_attrs.get("trial") == asked.user_attrs["trial"]
    }
    return [
        _sibling(asked, ratio, point, goals)
        for point in points_from_dicts(asked.user_attrs["points"])
        if (ratio := point.mixing_ratio) != GLOBAL and ratio not in present
    ]


def _sibling(asked: FrozenTrial, ratio: Ratio, point: OperatingPoint, goals: Goals) -> FrozenTrial:
    params = ratio_params(ratio, len(asked.user_attrs["config"]["experts"]))
    attributes = {
        "trial": asked.user_attrs["trial"],
        "mixing_ratio": ratio,
        "n_images": point.n_images,
        "epoch": point.epoch,
        "told_as": asked.user_attrs["told_as"],
        "sibling": True,
    }
    return goals.completed(
        {**asked.params, **params}, asked.distributions, point.accuracies, attributes
    )


def observations_of(trials: Iterable[FrozenTrial], goals: Goals) -> list[FrozenTrial]:
    """What the sampler sees of trials that ended.

    A failure that would happen again has accuracies of 0; other failures are left out.
    """
    worst = dict.fromkeys(goals.objectives, 0.0)
    return [
        goals.completed(trial.params, trial.distributions, worst)
        if trial.state == TrialState.FAIL
        else trial
        for trial in trials
        if trial.state != TrialState.FAIL or is_lasting_failure(trial)
    ]


def as_of(trial: FrozenTrial, n_told: int) -> FrozenTrial:
    """A trial as it was when the first `n_told` trials that ended had been told."""
    attributes = trial.user_attrs
    if "origin" in attributes or (trial.state.is_finished() and attributes["told_as"] < n_told):
        return trial
    keys = ("trial", "asked_after", "config", "mixing_ratio", "member")
    return as_running(trial, {key: attributes[key] for key in keys if key in attributes})


def growth_of(
    ended: Sequence[FrozenTrial], points: Sequence[FrontPoint], goals: Goals
) -> list[Growth]:
    """How cost and hypervolume grew with each of the trials that `ended`, which are in order."""
    released = by_trial(points)
    cost, front, history = 0.0, goals.front_of(()), []
    begun = min((trial.datetime_start or datetime.max for trial in ended), default=datetime.max)
    for trial in ended:
        name = trial.user_attrs["trial"]
        cost += trial.user_attrs["cost"].get("forward_images", 0)
        front = goals.front_of([*front.points, *released.get(name, [])])
        growth = Growth(
            trial=name,
            forward_images=cost,
            hypervolume=front.hypervolume,
            elapsed_s=((trial.datetime_complete or begun) - begun).total_seconds(),
        )
        history.append(growth)
    return history


def parameters_of(observation: Observation, space: Space, base: TrainConfig) -> FixedTrial:
    """The parameters of an observation, with the distributions that the space gives them.

    Raises:
        InvalidConfigError: they make no configuration of the space.
    """
    fixed = FixedTrial(dict(observation.params))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "The value .* is out of the range")
            configuration_of(space, fixed, base)
            suggest_ratio(fixed, len(base.experts))
    except (ValueError, UserWarning) as error:
        raise InvalidConfigError(
            f"Observations must be of this space, but {observation.origin} is not: {error}"
        ) from error
    return fixed
