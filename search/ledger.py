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

from generalist_core.codec import to_dict
from generalist_core.config import Ratio, TrainConfig, as_weights
from generalist_core.evaluation import OperatingPoint
from search.front import FrontPoint
from spaces import Space

STUDY = "generalist-search"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial to run: its id, configuration, and the release ratio the sampler asked for."""

    trial: str
    config: TrainConfig
    ratio: Ratio


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


class Ledger:
    """The study behind a sweep; the one place where Optuna's trials are asked, told and read."""

    def __init__(
        self, storage: BaseStorage, objectives: Sequence[str], *, sampler: BaseSampler | None
    ) -> None:
        """Open the study, creating it if it is not there."""
        self.objectives = tuple(objectives)
        self.storage = storage
        self.study = optuna.create_study(
            storage=self.storage,
            sampler=sampler,
            study_name=STUDY,
            directions=["maximize"] * len(objectives),
            load_if_exists=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.set_metric_names(list(objectives))
        self._numbers: dict[str, int] = {t.user_attrs["trial"]: t.number for t in self._asked()}

    def enqueue(
        self, params: Mapping[str, float | int | str], ratio: Ratio, n_experts: int
    ) -> None:
        """Make the next proposal this one."""
        self.study.enqueue_trial({**params, **ratio_params(ratio, n_experts)})

    def ask(self, space: Space, base: TrainConfig) -> Proposal:
        """The next trial to run."""
        asked = self.study.ask()
        name = f"{len(self._numbers):04d}"
        asked.set_user_attr("trial", name)
        self._numbers[name] = asked.number
        config = space(asked, base)
        ratio = suggest_ratio(asked, len(base.experts))
        asked.set_user_attr("config", to_dict(config))
        asked.set_user_attr("ratio", ratio)
        return Proposal(trial=name, config=config, ratio=ratio)

    def tell_released(
        self, trial: str, points: Sequence[OperatingPoint], cost: Mapping[str, float]
    ) -> None:
        """Complete a trial with the point of its own ratio; the others are added beside it."""
        asked = self._frozen(trial)
        own = next(point for point in points if point.ratio == _as_ratio(asked.user_attrs["ratio"]))
        self._annotate(asked.number, {"n_images": own.n_images, "cost": dict(cost)})
        self.study.tell(asked.number, self._values(own))
        self.study.add_trials([self._sibling(asked, point) for point in points if point is not own])

    def tell_failed(self, trial: str, reason: str) -> None:
        """Close a trial that came to nothing."""
        number = self._numbers[trial]
        self._annotate(number, {"reason": reason})
        self.study.tell(number, state=TrialState.FAIL)

    def close_unfinished(self, reason: str) -> list[str]:
        """Close every trial that is still open; returns their ids."""
        unfinished = [t for t in self._asked() if not t.state.is_finished()]
        for trial in unfinished:
            self.tell_failed(trial.user_attrs["trial"], reason)
        return [trial.user_attrs["trial"] for trial in unfinished]

    def points(self) -> list[FrontPoint]:
        """Every operating point of every completed trial."""
        completed = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [self._point(trial) for trial in completed]

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
        """What all completed trials cost together."""
        costs = [trial.user_attrs.get("cost", {}) for trial in self._asked()]
        return {
            key: sum(cost.get(key, 0) for cost in costs) for key in ("forward_images", "seconds")
        }

    def _asked(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if "trial" in t.user_attrs and "sibling" not in t.user_attrs]

    def _frozen(self, trial: str) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[self._numbers[trial]]

    def _annotate(self, number: int, attributes: Mapping[str, Any]) -> None:
        trial_id = self.study.get_trials(deepcopy=False)[number]._trial_id
        for key, value in attributes.items():
            self.storage.set_trial_user_attr(trial_id, key, value)

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
        )

    def _point(self, trial: FrozenTrial) -> FrontPoint:
        return FrontPoint(
            trial=trial.user_attrs["trial"],
            mixing_ratio=_as_ratio(trial.user_attrs["ratio"]),
            accuracies=dict(zip(self.objectives, trial.values, strict=True)),
            n_images=trial.user_attrs["n_images"],
            config=trial.user_attrs["config"],
        )


def open_storage(url: str | None, journal: Path) -> BaseStorage:
    """The Optuna storage at `url`, or the journal file if there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        return JournalStorage(JournalFileBackend(str(journal)))
    return optuna.storages.get_storage(url)


def suggest_ratio(trial: optuna.Trial, n_experts: int) -> Ratio:
    """The release ratio, by breaking a stick: parameter i is the last remaining expert's share.

    For two experts `release_ratio.1` is the mixing ratio itself.
    """
    weights, left = [0.0] * n_experts, 1.0
    for expert in range(n_experts - 1, 0, -1):
        weights[expert] = left * trial.suggest_float(f"release_ratio.{expert}", 0.0, 1.0)
        left -= weights[expert]
    weights[0] = left
    return weights[1] if n_experts == 2 else tuple(weights)


def ratio_params(ratio: Ratio, n_experts: int) -> dict[str, float]:
    """The parameters from which `suggest_ratio` makes `ratio`."""
    weights, left, params = as_weights(ratio, n_experts), 1.0, {}
    for expert in range(n_experts - 1, 0, -1):
        share = weights[expert] / left if left > 0 else 0.0
        params[f"release_ratio.{expert}"] = min(1.0, share)
        left -= weights[expert]
    return params


def _as_ratio(stored: float | Sequence[float]) -> Ratio:
    return tuple(stored) if isinstance(stored, list | tuple) else float(stored)  # type: ignore[arg-type]
