"""What a study holds, to be read: how its trials ended, their operating points, the front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict, to_json
from search.front.front import Front
from search.front.points import FrontPoint
from search.study.failures import Failure
from search.study.records import Growth, Observation, Proposal, TrialCounts, TrialRecord
from search.study.trials import (
    Goals,
    failure_of,
    growth_of,
    is_lasting_failure,
    name_of,
    point_of,
    proposal_of,
    record_of,
)

COSTS = (
    "forward_images",
    "reused_forward_images",
    "lost_forward_images",
    "seconds",
    "gpu_seconds",
)


class Results:
    """The trials of a study and what they came to; the ledger keeps it up to date."""

    def __init__(self, study: optuna.Study, goals: Goals) -> None:
        """Begin without a trial; `take_in` and `learn` add them."""
        self.study = study
        self.goals = goals
        self._numbers: dict[str, int] = {}
        self._configs: dict[str, Any] = {}
        self._failing: set[str] = set()
        self._points: list[FrontPoint] = []
        self._front = goals.front_of(())

    def points(self) -> list[FrontPoint]:
        """Every operating point of every completed trial of this sweep, in the order of asking."""
        return sorted(self._points, key=_trial)

    def front(self) -> Front:
        """The operating points that no other dominates, worth what lies above the floors."""
        return self._front

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of what is to be maximised, in their order."""
        return self.goals.objectives

    @property
    def reference(self) -> tuple[float, ...]:
        """The reference point of the hypervolume: the floors, 0 where there is none."""
        return self.goals.reference

    @property
    def n_asked(self) -> int:
        """How many trials were asked, siblings not counted."""
        return len(self._numbers)

    def proposals(self) -> list[Proposal]:
        """What was proposed so far, and could be trained."""
        asked = [trial for trial in self.asked() if "config" in trial.user_attrs]
        return [proposal_of(trial) for trial in asked]

    def records(self) -> list[TrialRecord]:
        """Every asked trial as it is, siblings not counted, in the order of asking."""
        return [record_of(trial) for trial in self.asked()]

    def counts(self) -> TrialCounts:
        """How the asked trials ended, siblings not counted."""
        states = [trial.state for trial in self.asked()]
        return TrialCounts(
            completed=states.count(TrialState.COMPLETE),
            stopped_early=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
            unfinished=sum(not state.is_finished() for state in states),
        )

    def failures(self) -> dict[str, Failure]:
        """Why each failed trial did."""
        failed = [trial for trial in self.asked() if trial.state == TrialState.FAIL]
        return {trial.user_attrs["trial"]: failure_of(trial) for trial in failed}

    def failure_kinds(self) -> dict[str, int]:
        """How many trials failed in which way."""
        return dict(Counter(failure.kind for failure in self.failures().values()))

    def has_ended(self, trial: str) -> bool:
        """Whether a trial of that name was asked, and has ended."""
        return trial in self._numbers and self.trial(trial).state.is_finished()

    def cost(self) -> dict[str, float]:
        """What all ended trials cost together, those that came to nothing too."""
        costs = [trial.user_attrs["cost"] for trial in self.ended()]
        return {key: sum(cost.get(key, 0) for cost in costs) for key in COSTS}

    def history(self) -> list[Growth]:
        """How cost and hypervolume grew, an entry for each trial that ended, in that order."""
        return growth_of(self.ended(), self._points, self.goals)

    def ended(self) -> list[FrozenTrial]:
        """The trials that ended, siblings not counted, in the order in which they did."""
        ended = [trial for trial in self.asked() if trial.state.is_finished()]
        return sorted(ended, key=lambda trial: trial.user_attrs["told_as"])

    def observations(self, origin: str) -> list[Observation]:
        """What another sweep can learn from this one."""
        completed = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [
            Observation(
                params=trial.params,
                accuracies=self.goals.accuracies(trial),
                origin=f"{origin} #{trial.number}",
            )
            for trial in completed
        ]

    def asked(self) -> list[FrozenTrial]:
        """The trials that were asked, siblings not counted, in the order of asking."""
        trials = self.study.get_trials(deepcopy=False)
        return [trials[number] for number in self._numbers.values()]

    def trial(self, trial: str) -> FrozenTrial:
        """A trial that was asked, by its id."""
        return self.study.get_trials(deepcopy=False)[self._numbers[trial]]

    def has_failed(self, config: TrainConfig) -> bool:
        """Whether this configuration failed in a way that it would fail again."""
        return to_json(config) in self._failing

    def take_in(self, trial: FrozenTrial) -> None:
        """Know a trial that was asked, by its name."""
        name = name_of(trial)
        if name is not None:
            self._numbers[name] = trial.number
            self._configs[name] = trial.user_attrs.get("config")

    def learn(self, trials: Sequence[FrozenTrial]) -> None:
        """Know what failed, and the points."""
        for trial in trials:
            if is_lasting_failure(trial) and "config" in trial.user_attrs:
                self._failing.add(to_json(from_dict(trial.user_attrs["config"], TrainConfig)))
        completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        points = [
            point_of(trial, self._configs[trial.user_attrs["trial"]], self.goals)
            for trial in completed
            if "trial" in trial.user_attrs
        ]
        self._points += points
        self._front = self.goals.front_of(sorted([*self._front.points, *points], key=_trial))


def _trial(point: FrontPoint) -> str:
    return point.trial
