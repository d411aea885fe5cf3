"""The Optuna study of a sweep: what was asked, what came of it, in a final state each.

A sweep's trial is one Optuna trial with the mixing ratio of its release as one more parameter; the
other mixtures that it released are added as completed trials of their own ratio. So every operating
point is an observation, and the sampler learns the whole curve from one training.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from generalist_core.config import Ratio, TrainConfig
from generalist_core.config.codec import from_dict, to_dict, to_json
from generalist_core.config.mixing import as_ratio
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.validation import InvalidConfigError
from search.config import Floor
from search.front.front import Front
from search.front.points import FrontPoint, point_to_dict, trial_id
from search.study.failures import Failure
from search.study.records import (
    Growth,
    Observation,
    Proposal,
    RejectedError,
    TrialCounts,
    TrialRecord,
)
from search.study.samplers import SamplerOf, experimental
from search.study.sampling import Sampling
from search.study.trials import (
    Goals,
    as_of,
    failure_of,
    growth_of,
    is_lasting_failure,
    missing_siblings,
    name_of,
    parameters_of,
    point_of,
    proposal_of,
    record_of,
    running,
    seen,
)
from spaces import Space
from spaces.release_ratio import nearest, ratio_params, suggest_ratio

COSTS = (
    "forward_images",
    "reused_forward_images",
    "lost_forward_images",
    "seconds",
    "gpu_seconds",
)

MAX_ATTEMPTS = 20
"""How often a sampler may suggest what has failed before, until that counts as a trial."""


class Ledger:
    """The study behind a sweep; the one place where Optuna's trials are asked and told."""

    def __init__(
        self,
        storage: BaseStorage,
        objectives: Sequence[str],
        *,
        sampler_of: SamplerOf = lambda _: RandomSampler(),
        floors: Sequence[Floor] = (),
        study: str = "generalist-search",
        is_new: bool = True,
    ) -> None:
        """Begin the study of that name, or open one that is there; `floors` say what counts.

        Raises:
            InvalidConfigError: a new study has the name of one that is there, or an old one is not.
            SweepFolderError: a trial in the study has a name that no sweep gives.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.goals = Goals(objectives=tuple(objectives), floors=tuple(floors))
        self.storage = storage
        self.sampler_of = sampler_of
        self.study = self._begin(study) if is_new else self._open(study)
        self._read()

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

    def _read(self) -> None:
        """Take in the study from its beginning, its ends in the order in which they were told."""
        self._sampling = Sampling(self.sampler_of, len(self.objectives))
        self._unshown: deque[list[FrozenTrial]] = deque()
        self._numbers: dict[str, int] = {}
        self._configs: dict[str, Any] = {}
        self._failing: set[str] = set()
        self._points: list[FrontPoint] = []
        self._front = self.goals.front_of(())
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            self._know(trial)
        told: dict[int, list[FrozenTrial]] = {}
        for trial in trials:
            if "origin" in trial.user_attrs:
                self._unshown.append([trial])
            elif trial.state.is_finished():
                told.setdefault(trial.user_attrs["told_as"], []).append(trial)
        for _, ended in sorted(told.items()):
            self._unshown.append(ended)
            self._learn(ended)
        self._n_told = 1 + max(told, default=-1)

    @property
    def sampling(self) -> Sampling:
        """What the sampler is shown; of a study that was there not before it is needed."""
        while self._unshown:
            self._sampling.tell("", seen(self._unshown.popleft(), self.goals))
        return self._sampling

    def resume(self) -> list[Proposal]:
        """Mend what a crash left undone; returns the trials to go on with, which run again.

        A completed trial gets the points that were still to be added; who cannot go on is closed.
        """
        for trial in self._asked():
            if trial.state == TrialState.COMPLETE:
                self.study.add_trials(self._missing_siblings(trial))
        self._read()
        unfinished = [trial for trial in self._asked() if not trial.state.is_finished()]
        return [proposal for trial in unfinished if (proposal := self._go_on(trial)) is not None]

    def _go_on(self, trial: FrozenTrial) -> Proposal | None:
        name = trial.user_attrs["trial"]
        if trial.state == TrialState.WAITING:
            self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        self.sampling.go_on(name, trial)
        try:
            return proposal_of(trial)
        except (KeyError, InvalidConfigError) as error:
            reason = f"cannot go on, its configuration is not whole: {error}"
            self.tell_failed(name, Failure(kind="orphan", reason=reason))
            return None

    def before(self, trial: str) -> Ledger:
        """A ledger in memory that stands where this one stood when that trial was asked."""
        asked = self._frozen(trial)
        n_told = asked.user_attrs["asked_after"]
        past = Ledger(
            InMemoryStorage(), self.objectives, sampler_of=self.sampler_of, floors=self.goals.floors
        )
        earlier = self.study.get_trials(deepcopy=False)[: asked.number]
        past.study.add_trials([as_of(known, n_told) for known in earlier])
        past.resume()
        return past

    def pause(self, trial: str) -> None:
        """Leave a running trial for `resume`."""
        self.storage.set_trial_state_values(self._frozen(trial)._trial_id, TrialState.WAITING)

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
            RejectedError: the space made no valid configuration of what the sampler suggested, or
                it suggests nothing but configurations that failed.
        """
        name = trial_id(len(self._numbers))
        for attempt in range(MAX_ATTEMPTS):
            self.sampling.tell(name, [])
            asked = self.sampling.ask(name, fixed, attempt)
            try:
                config = space(asked, base)
                ratio = nearest(
                    suggest_ratio(asked, len(base.experts)), base.evaluation.release_ratios
                )
            except InvalidConfigError as error:
                reason = f"the space made an invalid configuration: {error}"
                raise self._rejected(name, reason) from error
            if to_json(config) not in self._failing:
                self._record(name, {"config": to_dict(config), "mixing_ratio": ratio})
                return Proposal(
                    trial=name, config=config, mixing_ratio=ratio, params=dict(asked.params)
                )
        reason = "the sampler suggests again and again what has failed before"
        raise self._rejected(name, reason)

    def _rejected(self, name: str, reason: str) -> RejectedError:
        self._record(name, {})
        self.tell_failed(name, Failure(kind="invalid", reason=reason))
        return RejectedError(name, reason)

    def _record(self, name: str, about: Mapping[str, Any]) -> None:
        """Write a trial that begins to the study, all at once."""
        about = {"trial": name, "asked_after": self._n_told, **about}
        self.study.add_trial(running(self.sampling.asked(name), about))
        self._know(self.study.get_trials(deepcopy=False)[-1])

    def tell_released(
        self,
        trial: str,
        points: Sequence[OperatingPoint],
        cost: Mapping[str, float],
        *,
        trained: TrainConfig | None = None,
    ) -> None:
        """Complete a trial with the point of its own ratio; the others are added beside it.

        `trained` is its configuration where that is not the one proposed.
        """
        ratio = as_ratio(self._frozen(trial).user_attrs["mixing_ratio"])
        own = next(point for point in points if point.mixing_ratio == ratio)
        about: dict[str, Any] = {"n_images": own.n_images, "epoch": own.epoch, "cost": dict(cost)}
        if trained is not None:
            about["config"] = to_dict(trained)
        about["points"] = [point_to_dict(point) for point in points]
        self._close(trial, TrialState.COMPLETE, about, accuracies=own.accuracies)
        self._know(self._frozen(trial))
        siblings = self._missing_siblings(self._frozen(trial))
        self.study.add_trials(siblings)
        self._take_in(trial, [self._frozen(trial), *siblings])

    def tell_failed(
        self, trial: str, failure: Failure, cost: Mapping[str, float] | None = None
    ) -> None:
        """Close a trial that came to nothing, at what it cost."""
        about = {"failure": failure.to_dict(), "cost": dict(cost or {})}
        self._close(trial, TrialState.FAIL, about)
        self._take_in(trial, [self._frozen(trial)])

    def tell_stopped(
        self, trial: str, epoch: int, cost: Mapping[str, float], accuracies: Mapping[str, float]
    ) -> None:
        """Close a trial that was stopped early, after `epoch` epochs with these `accuracies`."""
        about = {"stopped_at": epoch, "accuracies": dict(accuracies), "cost": dict(cost)}
        self._close(trial, TrialState.PRUNED, about)
        self._take_in(trial, [self._frozen(trial)])

    def _close(
        self,
        trial: str,
        state: TrialState,
        about: Mapping[str, Any],
        accuracies: Mapping[str, float] | None = None,
    ) -> None:
        """Write how a trial ended, its state last: after a crash before that it has not ended."""
        live = optuna.Trial(self.study, self._frozen(trial)._trial_id)
        for name, value in {**about, "told_as": self._n_told}.items():
            live.set_user_attr(name, value)
        values = None
        if accuracies is not None:
            values = self.goals.values(accuracies)
            for name, violation in self.goals.violations(accuracies).items():
                live.set_constraint(name, violation)
        self.study.tell(live.number, values, state=state)
        self._n_told += 1

    def observe(self, made: Observation, space: Space, base: TrainConfig) -> None:
        """Let the sampler learn from an observation made elsewhere; the front has no part in it.

        Raises:
            InvalidConfigError: its parameters make no configuration of the space.
        """
        fixed = parameters_of(made, space, base)
        about = {"origin": made.origin}
        trial = self.goals.completed(fixed.params, fixed.distributions, made.accuracies, about)
        self.study.add_trial(trial)
        self._take_in("", [trial])

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
        asked = [trial for trial in self._asked() if "config" in trial.user_attrs]
        return [proposal_of(trial) for trial in asked]

    def records(self) -> list[TrialRecord]:
        """Every asked trial as it is, siblings not counted, in the order of asking."""
        return [record_of(trial) for trial in self._asked()]

    def counts(self) -> TrialCounts:
        """How the asked trials ended, siblings not counted."""
        states = [trial.state for trial in self._asked()]
        return TrialCounts(
            completed=states.count(TrialState.COMPLETE),
            stopped_early=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
            unfinished=sum(not state.is_finished() for state in states),
        )

    def failures(self) -> dict[str, Failure]:
        """Why each failed trial did."""
        failed = [trial for trial in self._asked() if trial.state == TrialState.FAIL]
        return {trial.user_attrs["trial"]: failure_of(trial) for trial in failed}

    def failure_kinds(self) -> dict[str, int]:
        """How many trials failed in which way."""
        return dict(Counter(failure.kind for failure in self.failures().values()))

    def has_ended(self, trial: str) -> bool:
        """Whether a trial of that name was asked, and has ended."""
        return trial in self._numbers and self._frozen(trial).state.is_finished()

    def cost(self) -> dict[str, float]:
        """What all ended trials cost together, those that came to nothing too."""
        costs = [trial.user_attrs["cost"] for trial in self.ended()]
        return {key: sum(cost.get(key, 0) for cost in costs) for key in COSTS}

    def history(self) -> list[Growth]:
        """How cost and hypervolume grew, an entry for each trial that ended, in that order."""
        return growth_of(self.ended(), self._points, self.goals)

    def ended(self) -> list[FrozenTrial]:
        """The trials that ended, siblings not counted, in the order in which they did."""
        ended = [trial for trial in self._asked() if trial.state.is_finished()]
        return sorted(ended, key=lambda trial: trial.user_attrs["told_as"])

    def _know(self, trial: FrozenTrial) -> None:
        """Know a trial that was asked, by its name."""
        name = name_of(trial)
        if name is not None:
            self._numbers[name] = trial.number
            self._configs[name] = trial.user_attrs.get("config")

    def _take_in(self, name: str, trials: Sequence[FrozenTrial]) -> None:
        """Learn from a trial that ended, with its siblings, or from an observation."""
        self.sampling.tell(name, seen(trials, self.goals))
        self._learn(trials)

    def _learn(self, trials: Sequence[FrozenTrial]) -> None:
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

    def _asked(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [trials[number] for number in self._numbers.values()]

    def _frozen(self, trial: str) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[self._numbers[trial]]

    def _missing_siblings(self, asked: FrozenTrial) -> list[FrozenTrial]:
        later = self.study.get_trials(deepcopy=False)[asked.number :]
        return missing_siblings(asked, later, self.goals)


def _trial(point: FrontPoint) -> str:
    return point.trial
