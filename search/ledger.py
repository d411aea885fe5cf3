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
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from generalist_core.codec import to_dict
from generalist_core.config import Ratio, TrainConfig
from generalist_core.evaluation import OperatingPoint
from generalist_core.validation import InvalidConfigError, require_between
from search.front import Front, FrontPoint
from search.release_ratio import as_ratio, nearest, ratio_params, suggest_ratio
from search.samplers import experimental, fixing
from spaces import Space

COSTS = ("forward_images", "reused_forward_images", "seconds")


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
        self.objectives = tuple(objectives)
        self.floors = tuple(floors)
        self.storage = storage
        self.study = self._begin(study, sampler) if is_new else self._open(study)
        self._numbers: dict[str, int] = {t.user_attrs["trial"]: t.number for t in self._asked()}
        self._live: dict[str, optuna.Trial] = {}

    def _begin(self, name: str, sampler: BaseSampler | None) -> optuna.Study:
        try:
            study = optuna.create_study(
                storage=self.storage,
                sampler=sampler,
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
            return optuna.load_study(study_name=name, storage=self.storage)
        except KeyError as error:
            raise InvalidConfigError(
                f"`study {name!r}` must be in its storage, but is not."
            ) from error

    def enqueue(
        self, params: Mapping[str, float | int | str], ratio: Ratio, n_experts: int
    ) -> None:
        """Make the next proposal this one."""
        self.study.enqueue_trial({**params, **ratio_params(ratio, n_experts)})

    def ask(
        self, space: Space, base: TrainConfig, fixed: Mapping[str, Any] | None = None
    ) -> Proposal:
        """The next trial to run; the parameters in `fixed` are given, the sampler adds the rest."""
        sampler = self.study.sampler
        if fixed is not None:
            self.study.sampler = fixing(sampler, fixed)
        try:
            asked = self.study.ask()
            name = f"{len(self._numbers):04d}"
            asked.set_user_attr("trial", name)
            self._numbers[name], self._live[name] = asked.number, asked
            config = space(asked, base)
            ratio = suggest_ratio(asked, len(base.experts))
        except InvalidConfigError as error:
            self.tell_failed(name, f"the space made an invalid configuration: {error}")
            raise RejectedError(name, str(error)) from error
        finally:
            self.study.sampler = sampler
        ratio = nearest(ratio, base.evaluation.release_ratios)
        asked.set_user_attr("config", to_dict(config))
        asked.set_user_attr("ratio", ratio)
        return Proposal(trial=name, config=config, ratio=ratio, params=dict(asked.params))

    def tell_released(
        self, trial: str, points: Sequence[OperatingPoint], cost: Mapping[str, float]
    ) -> None:
        """Complete a trial with the point of its own ratio; the others are added beside it."""
        asked = self._frozen(trial)
        own = next(point for point in points if point.ratio == as_ratio(asked.user_attrs["ratio"]))
        live = self._live.pop(trial)
        live.set_user_attr("n_images", own.n_images)
        live.set_user_attr("cost", dict(cost))
        for name, violation in self._violations(own.accuracies).items():
            live.set_constraint(name, violation)
        self.study.tell(asked.number, self._values(own))
        self.study.add_trials([self._sibling(asked, point) for point in points if point is not own])

    def tell_failed(self, trial: str, reason: str, cost: Mapping[str, float] | None = None) -> None:
        """Close a trial that came to nothing, at what it cost."""
        frozen = self._frozen(trial)
        for key, value in {"reason": reason, "cost": dict(cost or {})}.items():
            self.storage.set_trial_user_attr(frozen._trial_id, key, value)
        self.study.tell(frozen.number, state=TrialState.FAIL)
        self._live.pop(trial, None)

    def tell_stopped(self, trial: str, epoch: int, cost: Mapping[str, float]) -> None:
        """Close a trial that was stopped early, after `epoch` epochs."""
        live = self._live.pop(trial)
        live.set_user_attr("stopped_at", epoch)
        live.set_user_attr("cost", dict(cost))
        self.study.tell(live.number, state=TrialState.PRUNED)

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
        trial = optuna.trial.create_trial(
            params=fixed.params,
            distributions=fixed.distributions,
            values=[seen.accuracies[name] for name in self.objectives],
            user_attrs={"origin": seen.origin},
            constraints=self._violations(seen.accuracies),
        )
        self.study.add_trial(trial)

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
        """Every operating point of every completed trial of this sweep."""
        completed = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [self._point(trial) for trial in completed if "trial" in trial.user_attrs]

    def front(self) -> Front:
        """The operating points that no other dominates, worth what lies above the floors."""
        return Front.of(self.points(), self.objectives, self.reference)

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

    def _asked(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if "trial" in t.user_attrs and "sibling" not in t.user_attrs]

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
        kept = {key: asked.user_attrs[key] for key in ("trial", "config")}
        return optuna.trial.create_trial(
            params={**asked.params, **ratio},
            distributions=distributions,
            values=self._values(point),
            user_attrs={**kept, "ratio": point.ratio, "n_images": point.n_images, "sibling": True},
            constraints=self._violations(point.accuracies),
        )

    def _point(self, trial: FrozenTrial) -> FrontPoint:
        return FrontPoint(
            trial=trial.user_attrs["trial"],
            mixing_ratio=as_ratio(trial.user_attrs["ratio"]),
            accuracies=dict(zip(self.objectives, trial.values, strict=True)),
            n_images=trial.user_attrs["n_images"],
            config=trial.user_attrs["config"],
        )


def open_storage(url: str | None, journal: Path) -> BaseStorage:
    """The Optuna storage at `url`, or the journal file if there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        return JournalStorage(JournalFileBackend(str(journal)))
    try:
        return optuna.storages.get_storage(url)
    except (ArgumentError, SQLAlchemyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidConfigError(
            f"`storage` must be an Optuna URL, but got {url!r}: {reason}"
        ) from error
