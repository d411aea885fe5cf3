"""The Optuna study of a sweep: what was asked, what came of it, in a final state each.

A sweep's trial is one Optuna trial with the mixing ratio of its release as one more parameter; the
other mixtures that it released are added as completed trials of their own ratio. So every operating
point is an observation, and the sampler learns the whole curve from one training.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from generalist_core.codec import to_dict
from generalist_core.config import Ratio, TrainConfig
from generalist_core.evaluation import OperatingPoint
from generalist_core.validation import InvalidConfigError, require_between
from search.front import Front, FrontPoint
from search.release_ratio import as_ratio, nearest, ratio_params, suggest_ratio
from search.samplers import experimental
from search.sampling import Sampling
from spaces import Space

COSTS = ("forward_images", "reused_forward_images", "seconds", "gpu_seconds")


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial to run: its id, configuration, and the release ratio the sampler asked for."""

    trial: str
    config: TrainConfig
    ratio: Ratio
    params: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Parameters of a space with its release ratio, the accuracies they gave, and who says so."""

    params: Mapping[str, Any]
    accuracies: Mapping[str, float]
    origin: str


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least accuracy of interest in an objective; the front counts from there."""

    objective: str
    accuracy: float

    def __post_init__(self) -> None:
        require_between("accuracy", self.accuracy, 0, 1)


@dataclass(frozen=True, kw_only=True)
class TrialCounts:
    """How many trials of a sweep ended in which way."""

    completed: int
    stopped_early: int
    failed: int

    @property
    def total(self) -> int:
        """All ended trials."""
        return self.completed + self.stopped_early + self.failed


class RejectedError(RuntimeError):
    """A suggestion that the space itself made no valid configuration of."""

    def __init__(self, trial: str, reason: str) -> None:
        super().__init__(reason)
        self.trial = trial


class Ledger:
    """The study behind a sweep; the one place where Optuna's trials are asked, told and read."""

    def __init__(
        self,
        storage: BaseStorage,
        objectives: Sequence[str],
        *,
        sampler: BaseSampler | None = None,
        floors: Sequence[Floor] = (),
        study: str = "generalist-search",
        is_new: bool = True,
    ) -> None:
        """Begin the study of that name, or open one that is there; `floors` say what counts.

        Raises:
            InvalidConfigError: a new study has the name of one that is there, or an old one is not.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.objectives = tuple(objectives)
        self.floors = tuple(floors)
        self.storage = storage
        self.study = self._begin(study) if is_new else self._open(study)
        self.sampling = Sampling(sampler or RandomSampler(), len(self.objectives))
        self._numbers: dict[str, int] = {}
        self._configs: dict[str, Any] = {}
        self._points: list[FrontPoint] = []
        self._front = self._front_of(())
        self._take_in(self.study.get_trials(deepcopy=False))

    def _begin(self, name: str) -> optuna.Study:
        try:
            study = optuna.create_study(
                storage=self.storage,
                sampler=RandomSampler(),
                study_name=name,
                directions=["maximize"] * len(self.objectives),
            )
        except optuna.exceptions.DuplicatedStudyError as error:
            raise InvalidConfigError(
                f"`a new study` must be begun, but {name!r} is there."
            ) from error
        with experimental():
            study.set_metric_names(list(self.objectives))
        return study

    def _open(self, name: str) -> optuna.Study:
        try:
            return optuna.load_study(study_name=name, storage=self.storage, sampler=RandomSampler())
        except KeyError as error:
            raise InvalidConfigError(
                f"`study {name!r}` must be in its storage, but is not."
            ) from error

    def enqueue(
        self, params: Mapping[str, float | int | str], ratio: Ratio, n_experts: int
    ) -> None:
        """Make a proposal this one: the next, after those enqueued before."""
        self.sampling.enqueue({**params, **ratio_params(ratio, n_experts)})

    def ask(
        self, space: Space, base: TrainConfig, fixed: Mapping[str, Any] | None = None
    ) -> Proposal:
        """The next trial to run; the parameters in `fixed` are given, the sampler adds the rest.

        It is in the study before it is returned.

        Raises:
            RejectedError: the space made no valid configuration of what the sampler suggested.
        """
        name = f"{len(self._numbers):04d}"
        asked = self.sampling.ask(name, fixed)
        try:
            config = space(asked, base)
            ratio = nearest(suggest_ratio(asked, len(base.experts)), base.evaluation.release_ratios)
        except InvalidConfigError as error:
            self._record(name, {})
            self.tell_failed(name, f"the space made an invalid configuration: {error}")
            raise RejectedError(name, str(error)) from error
        self._record(name, {"config": to_dict(config), "ratio": ratio})
        return Proposal(trial=name, config=config, ratio=ratio, params=dict(asked.params))

    def _record(self, name: str, about: Mapping[str, Any]) -> None:
        """Write a trial that begins to the study, all at once."""
        asked = self.sampling.asked(name)
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=asked.params,
                distributions=asked.distributions,
                user_attrs={"trial": name, **about},
                system_attrs=asked.system_attrs,
            )
        )
        self._take_in(self.study.get_trials(deepcopy=False)[-1:])

    def tell_released(
        self, trial: str, points: Sequence[OperatingPoint], cost: Mapping[str, float]
    ) -> None:
        """Complete a trial with the point of its own ratio; the others are added beside it."""
        asked = self._frozen(trial)
        own = next(point for point in points if point.ratio == as_ratio(asked.user_attrs["ratio"]))
        siblings = [self._sibling(asked, point) for point in points if point is not own]
        live = optuna.Trial(self.study, asked._trial_id)
        live.set_user_attr("n_images", own.n_images)
        live.set_user_attr("cost", dict(cost))
        for name, violation in self._violations(own.accuracies).items():
            live.set_constraint(name, violation)
        self.study.tell(asked.number, self._values(own))
        self.study.add_trials(siblings)
        observed = [self._frozen(trial), *siblings]
        self.sampling.tell(trial, observed)
        self._add_points(observed)

    def tell_failed(self, trial: str, reason: str, cost: Mapping[str, float] | None = None) -> None:
        """Close a trial that came to nothing, at what it cost."""
        live = optuna.Trial(self.study, self._frozen(trial)._trial_id)
        live.set_user_attr("reason", reason)
        live.set_user_attr("cost", dict(cost or {}))
        self.study.tell(live.number, state=TrialState.FAIL)
        self.sampling.tell(trial, [])

    def tell_stopped(
        self, trial: str, epoch: int, cost: Mapping[str, float], accuracies: Mapping[str, float]
    ) -> None:
        """Close a trial that was stopped early, after `epoch` epochs with these `accuracies`."""
        live = optuna.Trial(self.study, self._frozen(trial)._trial_id)
        live.set_user_attr("stopped_at", epoch)
        live.set_user_attr("accuracies", dict(accuracies))
        live.set_user_attr("cost", dict(cost))
        self.study.tell(live.number, state=TrialState.PRUNED)
        self.sampling.tell(trial, [self._frozen(trial)])

    def observe(self, seen: Observation, space: Space, base: TrainConfig) -> None:
        """Let the sampler learn from an observation made elsewhere; the front has no part in it.

        Raises:
            InvalidConfigError: its parameters make no configuration of the space.
        """
        fixed = optuna.trial.FixedTrial(dict(seen.params))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                space(fixed, base)
                suggest_ratio(fixed, len(base.experts))
        except (ValueError, UserWarning) as error:
            law = "observations are of this space"
            raise InvalidConfigError(f"`{law}` must hold, but {seen.origin}: {error}") from error
        trial = create_trial(
            params=fixed.params,
            distributions=fixed.distributions,
            values=[seen.accuracies[name] for name in self.objectives],
            user_attrs={"origin": seen.origin},
            constraints=self._violations(seen.accuracies),
        )
        self.study.add_trial(trial)
        self._take_in([trial])

    def observations(self, origin: str) -> list[Observation]:
        """What another sweep can learn from this one."""
        completed = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [
            Observation(
                params=trial.params,
                accuracies=dict(zip(self.objectives, trial.values, strict=True)),
                origin=f"{origin} #{trial.number}",
            )
            for trial in completed
        ]

    def close_unfinished(self, reason: str) -> list[str]:
        """Close every trial that is still open; returns their ids."""
        unfinished = [t for t in self._asked() if not t.state.is_finished()]
        for trial in unfinished:
            self.tell_failed(trial.user_attrs["trial"], reason)
        return [trial.user_attrs["trial"] for trial in unfinished]

    def points(self) -> list[FrontPoint]:
        """Every operating point of every completed trial of this sweep, in the order of asking."""
        return sorted(self._points, key=_trial)

    def front(self) -> Front:
        """The operating points that no other dominates, worth what lies above the floors."""
        return self._front

    @property
    def reference(self) -> tuple[float, ...]:
        """The reference point of the hypervolume: the floors, 0 where there is none."""
        floors = {floor.objective: floor.accuracy for floor in self.floors}
        return tuple(floors.get(name, 0.0) for name in self.objectives)

    def counts(self) -> TrialCounts:
        """How the asked trials ended, siblings not counted."""
        states = [trial.state for trial in self._asked()]
        return TrialCounts(
            completed=states.count(TrialState.COMPLETE),
            stopped_early=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
        )

    def failures(self) -> dict[str, str]:
        """The reason of each failed trial."""
        failed = [trial for trial in self._asked() if trial.state == TrialState.FAIL]
        return {t.user_attrs["trial"]: t.user_attrs.get("reason", "unknown") for t in failed}

    def cost(self) -> dict[str, float]:
        """What all trials cost together, those that came to nothing too."""
        costs = [trial.user_attrs.get("cost", {}) for trial in self._asked()]
        return {key: sum(cost.get(key, 0) for cost in costs) for key in COSTS}

    def _take_in(self, trials: Sequence[FrozenTrial]) -> None:
        """Know trials that came into the study: what was asked, and points."""
        for trial in trials:
            name = trial.user_attrs.get("trial")
            if name is not None and "sibling" not in trial.user_attrs:
                self._numbers[name] = trial.number
                self._configs[name] = trial.user_attrs.get("config")
        seen = (TrialState.COMPLETE, TrialState.PRUNED)
        self.sampling.tell("", [trial for trial in trials if trial.state in seen])
        completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        self._add_points([trial for trial in completed if "trial" in trial.user_attrs])

    def _add_points(self, trials: Sequence[FrozenTrial]) -> None:
        """A new front needs the old one and the new points only; the order is that of asking."""
        points = [self._point(trial) for trial in trials]
        self._points += points
        self._front = self._front_of(sorted([*self._front.points, *points], key=_trial))

    def _front_of(self, points: Sequence[FrontPoint]) -> Front:
        return Front.of(points, self.objectives, self.reference)

    def _asked(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [trials[number] for number in self._numbers.values()]

    def _frozen(self, trial: str) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[self._numbers[trial]]

    def _violations(self, accuracies: Mapping[str, float]) -> dict[str, float]:
        """How far each floor is missed; 0 or less where it is kept."""
        return {f.objective: f.accuracy - accuracies[f.objective] for f in self.floors}

    def _values(self, point: OperatingPoint) -> list[float]:
        return [point.accuracies[name] for name in self.objectives]

    def _sibling(self, asked: FrozenTrial, point: OperatingPoint) -> FrozenTrial:
        n_experts = len(asked.user_attrs["config"]["experts"])
        ratio = ratio_params(point.ratio, n_experts)
        distributions: dict[str, BaseDistribution] = dict(asked.distributions)
        return create_trial(
            params={**asked.params, **ratio},
            distributions=distributions,
            values=self._values(point),
            user_attrs={
                "trial": asked.user_attrs["trial"],
                "ratio": point.ratio,
                "n_images": point.n_images,
                "sibling": True,
            },
            constraints=self._violations(point.accuracies),
        )

    def _point(self, trial: FrozenTrial) -> FrontPoint:
        return FrontPoint(
            trial=trial.user_attrs["trial"],
            mixing_ratio=as_ratio(trial.user_attrs["ratio"]),
            accuracies=dict(zip(self.objectives, trial.values, strict=True)),
            n_images=trial.user_attrs["n_images"],
            config=self._configs[trial.user_attrs["trial"]],
        )


def _trial(point: FrontPoint) -> str:
    return point.trial


def open_storage(url: str | None, journal: Path) -> BaseStorage:
    """The Optuna storage at `url`, or the journal file if there is none."""
    if url is None:
        return JournalStorage(JournalFileBackend(str(journal)))
    try:
        return optuna.storages.get_storage(url)
    except (ArgumentError, SQLAlchemyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidConfigError(
            f"`storage` must be an Optuna URL, but got {url!r}: {reason}"
        ) from error
