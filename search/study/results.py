"""The results of a study, to be read: how its trials ended, their operating points, the front."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict, to_dict
from generalist_core.validation import InvalidConfigError
from search.front.front import Front
from search.front.points import FrontPoint
from search.study.failures import Failure
from search.study.records import (
    ExhaustedError,
    Growth,
    Observation,
    Proposal,
    TrialCounts,
    TrialRecord,
)
from search.study.trials import (
    Goals,
    failure_of,
    growth_of,
    is_lasting_failure,
    name_of,
    points_of,
    proposal_of,
    record_of,
)
from search.wording import plural
from spaces import Space
from spaces.grid import grid

COSTS = ("forward_images", "reused_forward_images", "lost_forward_images", "seconds", "gpu_seconds")
"""The costs of a trial; shared warm-ups saved the reused images, crashes wasted the lost ones."""

ENOUGH = 2
"""After so many passing failures a configuration is not tried again, as after a lasting one."""


class Results:
    """The trials of a study and their results. Siblings do not count as trials.

    The ledger keeps them up to date: it alone calls `add_asked` and `add_ended`.
    """

    def __init__(self, study: optuna.Study, goals: Goals) -> None:
        """Begin without trials."""
        self.study = study
        self.goals = goals
        self._numbers: dict[str, int] = {}
        self._configs: dict[str, Any] = {}
        self._failures: Counter[str] = Counter()
        self._trained: dict[str, set[str]] = {}
        self._points: list[FrontPoint] = []
        self._front = goals.front_of(())

    def add_asked(self, trial: FrozenTrial) -> None:
        """Know a trial that was asked by its name; siblings and observations are ignored."""
        name = name_of(trial)
        if name is not None:
            self._numbers[name] = trial.number
            self._configs[name] = _in_present_form(trial.user_attrs.get("config"))
            self._trained.setdefault(_key_of(self._configs[name], **_SAME), set()).add(name)

    def add_ended(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in the points, or the failure, of a trial that ended, given with its siblings."""
        for trial in trials:
            if trial.state == TrialState.FAIL:
                name = trial.user_attrs["trial"]
                config = self._configs[name]
                self._trained[_key_of(config, **_SAME)].discard(name)
                self._failures[_key_of(config)] += ENOUGH if is_lasting_failure(trial) else 1
        points = [
            point
            for trial in trials
            if trial.state == TrialState.COMPLETE and "trial" in trial.user_attrs
            for point in points_of(trial, self._configs[trial.user_attrs["trial"]], self.goals)
        ]
        points.sort(key=attrgetter("is_global"))  # among equals a front keeps the mixture
        self._points += points
        candidates = sorted([*self._front.points, *points], key=attrgetter("trial"))
        self._front = self.goals.front_of(candidates)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives, in their order."""
        return self.goals.objectives

    @property
    def reference(self) -> tuple[float, ...]:
        """The reference point of the hypervolume, see `Goals.reference`."""
        return self.goals.reference

    def points(self) -> list[FrontPoint]:
        """Every operating point of every completed trial, in the order of asking."""
        return sorted(self._points, key=attrgetter("trial"))

    def front(self) -> Front:
        """The operating points that no other dominates; floors bound their hypervolume."""
        return self._front

    @property
    def n_asked(self) -> int:
        """The number of trials that were asked."""
        return len(self._numbers)

    def asked(self) -> list[FrozenTrial]:
        """The trials that were asked, in the order of asking."""
        trials = self.study.get_trials(deepcopy=False)
        return [trials[number] for number in self._numbers.values()]

    def ended(self) -> list[FrozenTrial]:
        """The trials that ended, in the order in which they did."""
        ended = [trial for trial in self.asked() if trial.state.is_finished()]
        return sorted(ended, key=lambda trial: trial.user_attrs["told_as"])

    def trial(self, trial: str) -> FrozenTrial:
        """A trial by its id."""
        return self.study.get_trials(deepcopy=False)[self._numbers[trial]]

    def was_asked(self, trial: str) -> bool:
        """Whether a trial has this id."""
        return trial in self._numbers

    def has_ended(self, trial: str) -> bool:
        """Whether a trial with this id was asked and has ended."""
        return self.was_asked(trial) and self.trial(trial).state.is_finished()

    def was_tried(self, config: TrainConfig) -> bool:
        """Whether a trial has trained this configuration, or trains it, or it failed `ENOUGH`."""
        asked = to_dict(config)
        is_trained = bool(self._trained.get(_key_of(asked, **_SAME)))
        return is_trained or self._failures[_key_of(asked)] >= ENOUGH

    def untried(
        self, space: Space, base: TrainConfig, fixed: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The first parameters in the grid of a space whose configuration was not tried.

        Raises:
            ExhaustedError: there are none.
            NoGridError: the space has no grid.
        """
        n_tried = 0
        for params, config in grid(space, base, fixed):
            if not self.was_tried(config):
                return {**(fixed or {}), **params}
            n_tried += 1
        n = plural(n_tried, "configuration")
        raise ExhaustedError(f"all {n} of the space were tried")

    def proposals(self) -> list[Proposal]:
        """The proposals so far, without suggestions that the space refused."""
        asked = [trial for trial in self.asked() if "config" in trial.user_attrs]
        return [proposal_of(trial) for trial in asked]

    def records(self) -> list[TrialRecord]:
        """The record of every trial, in the order of asking."""
        return [record_of(trial) for trial in self.asked()]

    def counts(self) -> TrialCounts:
        """How many trials ended in which way."""
        states = [trial.state for trial in self.asked()]
        return TrialCounts(
            completed=states.count(TrialState.COMPLETE),
            stopped_early=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
            unfinished=sum(not state.is_finished() for state in states),
        )

    def failures(self) -> dict[str, Failure]:
        """Why each failed trial failed, by its id."""
        failed = [trial for trial in self.asked() if trial.state == TrialState.FAIL]
        return {trial.user_attrs["trial"]: failure_of(trial) for trial in failed}

    def failure_kinds(self) -> dict[str, int]:
        """How many trials failed in which way."""
        return dict(Counter(failure.kind for failure in self.failures().values()))

    def cost(self) -> dict[str, float]:
        """The total cost of all trials that ended, failed ones included, see `COSTS`."""
        costs = [trial.user_attrs["cost"] for trial in self.ended()]
        return {key: sum(cost.get(key, 0) for cost in costs) for key in COSTS}

    def history(self) -> list[Growth]:
        """How cost and hypervolume grew: one entry per trial that ended, in that order."""
        return growth_of(self.ended(), self._points, self.goals)

    def observations(self, origin: str) -> list[Observation]:
        """What another sweep can learn from this study; `origin` names it."""
        completed = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [
            Observation(
                params=trial.params,
                accuracies=self.goals.accuracies(trial),
                origin=f"{origin} #{trial.number}",
            )
            for trial in completed
        ]


def _in_present_form(config: Any) -> Any:
    """A configuration with all fields that it has by now; one that is none stays as it is."""
    with contextlib.suppress(InvalidConfigError):
        return to_dict(from_dict(config, TrainConfig))
    return config


def _key_of(config: Any, **changes: Any) -> str:
    """What tells configurations apart: 0.85 and the multiple 0.8500000000000001 of a step do not.

    Trainings are compared with `_SAME`, as a trial that runs out of memory may accumulate.
    """
    known = config if isinstance(config, dict) else {}
    text = json.dumps({**known, **changes}, sort_keys=True)
    return json.dumps(json.loads(text, parse_float=lambda number: f"{float(number):.12g}"))


_SAME = {"n_accumulations": 1}
