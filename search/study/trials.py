"""The entries of a sweep's study: its trials as Optuna has them, written and read.

What Optuna has no place for is in a trial's attributes. Of one that was asked: its name `trial`,
`asked_after` (how many had ended then), its `config` and `mixing_ratio`; and since it ended
`told_as` (as which it did), its `cost`, and how. A `sibling` has another mixture of a trial, an
observation made elsewhere its `origin`.
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
from generalist_core.config.mixing import as_ratio
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.validation import InvalidConfigError
from search.config import Floor
from search.errors import SweepFolderError
from search.front.front import Front
from search.front.points import FrontPoint, points_from_dicts
from search.study.failures import Failure
from search.study.records import Growth, Observation, Proposal, State, TrialRecord
from spaces import Space
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
    """The objectives of a sweep, in their order, and the floors that some of them have."""

    objectives: tuple[str, ...]
    floors: tuple[Floor, ...] = ()

    @property
    def reference(self) -> tuple[float, ...]:
        """The reference point of the hypervolume: the floors, 0 where there is none."""
        floors = {floor.objective: floor.accuracy for floor in self.floors}
        return tuple(floors.get(name, 0.0) for name in self.objectives)

    def values(self, accuracies: Mapping[str, float]) -> list[float]:
        """The accuracies in the objectives' order."""
        return [accuracies[name] for name in self.objectives]

    def accuracies(self, trial: FrozenTrial) -> dict[str, float]:
        """Those of a completed trial, by name."""
        return dict(zip(self.objectives, trial.values, strict=True))

    def violations(self, accuracies: Mapping[str, float]) -> dict[str, float]:
        """How far each floor is missed; 0 or less where it is kept."""
        return {f.objective: f.accuracy - accuracies[f.objective] for f in self.floors}

    def front_of(self, points: Sequence[FrontPoint]) -> Front:
        """The front among points, worth what lies above the floors."""
        return Front.of(points, self.objectives, self.reference)

    def completed(
        self,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        accuracies: Mapping[str, float],
        about: Mapping[str, Any] | None = None,
    ) -> FrozenTrial:
        """An entry of these parameters that came to these accuracies."""
        return create_trial(
            params=dict(params),
            distributions=dict(distributions),
            values=self.values(accuracies),
            user_attrs=dict(about or {}),
            constraints=self.violations(accuracies),
        )


def name_of(trial: FrozenTrial) -> str | None:
    """The name of a trial that was asked; siblings and observations have none.

    Raises:
        SweepFolderError: it is none that a sweep gives.
    """
    name = trial.user_attrs.get("trial")
    if name is None or "sibling" in trial.user_attrs:
        return None
    if not (isinstance(name, str) and name.isdigit()):
        raise SweepFolderError(f"A trial must be named by a number, but the study has {name!r}.")
    return name


def running(trial: FrozenTrial, about: Mapping[str, Any] | None = None) -> FrozenTrial:
    """An entry that runs, with what a trial was given."""
    return create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=dict(about or {}),
        system_attrs=trial.system_attrs,
    )


def proposal_of(trial: FrozenTrial) -> Proposal:
    """What was asked."""
    about = trial.user_attrs
    return Proposal(
        trial=about["trial"],
        config=from_dict(about["config"], TrainConfig),
        mixing_ratio=as_ratio(about["mixing_ratio"]),
        params=trial.params,
    )


def failure_of(trial: FrozenTrial) -> Failure:
    """Why a failed trial did."""
    return Failure(**trial.user_attrs["failure"])


def is_lasting_failure(trial: FrozenTrial) -> bool:
    """Whether a trial failed and would again."""
    return trial.state == TrialState.FAIL and failure_of(trial).is_lasting


def record_of(trial: FrozenTrial) -> TrialRecord:
    """How a trial that was asked ended, or stands."""
    about, state = trial.user_attrs, STATES[trial.state]
    return TrialRecord(
        trial=about["trial"],
        state=state,
        is_given="fixed_params" in trial.system_attrs,
        asked_after=about["asked_after"],
        params=trial.params,
        config=about.get("config"),
        cost=about["cost"] if trial.state.is_finished() else {},
        stopped_at=about["stopped_at"] if state == "stopped early" else None,
        failure=failure_of(trial) if state == "failed" else None,
    )


def point_of(trial: FrozenTrial, config: Mapping[str, Any], goals: Goals) -> FrontPoint:
    """The operating point of a completed trial or sibling; `config` is the trial's.

    Raises:
        SweepFolderError: the sweep is older than points that name their epoch.
    """
    about = trial.user_attrs
    if "epoch" not in about:
        raise SweepFolderError(
            "A study's points must name their epoch, but those of trial "
            f"{about['trial']} do not. Open it with the version that began it."
        )
    return FrontPoint(
        trial=about["trial"],
        mixing_ratio=as_ratio(about["mixing_ratio"]),
        accuracies=goals.accuracies(trial),
        n_images=about["n_images"],
        epoch=about["epoch"],
        config=config,
    )


def missing_siblings(
    asked: FrozenTrial, later: Iterable[FrozenTrial], goals: Goals
) -> list[FrozenTrial]:
    """The entries of a completed trial's other mixtures, less those that are among `later` ones."""
    name, own = asked.user_attrs["trial"], as_ratio(asked.user_attrs["mixing_ratio"])
    there: set[Ratio] = {
        as_ratio(trial.user_attrs["mixing_ratio"])
        for trial in later
        if trial.user_attrs.get("trial") == name
    }
    points = points_from_dicts(asked.user_attrs["points"])
    return [_sibling(asked, p, goals) for p in points if p.mixing_ratio not in {own, *there}]


def _sibling(asked: FrozenTrial, point: OperatingPoint, goals: Goals) -> FrozenTrial:
    params = ratio_params(point.mixing_ratio, len(asked.user_attrs["config"]["experts"]))
    about = {
        "trial": asked.user_attrs["trial"],
        "mixing_ratio": point.mixing_ratio,
        "n_images": point.n_images,
        "epoch": point.epoch,
        "told_as": asked.user_attrs["told_as"],
        "sibling": True,
    }
    return goals.completed({**asked.params, **params}, asked.distributions, point.accuracies, about)


def seen(trials: Iterable[FrozenTrial], goals: Goals) -> list[FrozenTrial]:
    """What the sampler sees: of a failure that would come again 0, of another nothing."""
    nothing = dict.fromkeys(goals.objectives, 0.0)
    return [
        goals.completed(trial.params, trial.distributions, nothing)
        if trial.state == TrialState.FAIL
        else trial
        for trial in trials
        if trial.state != TrialState.FAIL or is_lasting_failure(trial)
    ]


def as_of(trial: FrozenTrial, n_told: int) -> FrozenTrial:
    """A trial as it was when so many had been told."""
    about = trial.user_attrs
    if "origin" in about or (trial.state.is_finished() and about["told_as"] < n_told):
        return trial
    return running(
        trial, {key: about[key] for key in ("trial", "asked_after", "config", "mixing_ratio")}
    )


def growth_of(
    ended: Sequence[FrozenTrial], points: Iterable[FrontPoint], goals: Goals
) -> list[Growth]:
    """How cost and hypervolume grew with the trials that ended, in that order."""
    released: dict[str, list[FrontPoint]] = {}
    for point in points:
        released.setdefault(point.trial, []).append(point)
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
    """The parameters of an observation, each with what the space says of it.

    Raises:
        InvalidConfigError: they make no configuration of the space.
    """
    fixed = FixedTrial(dict(observation.params))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            space(fixed, base)
            suggest_ratio(fixed, len(base.experts))
    except (ValueError, UserWarning) as error:
        law = "observations are of this space"
        raise InvalidConfigError(f"`{law}` must hold, but {observation.origin}: {error}") from error
    return fixed
