"""The Optuna study of a sweep: what was asked, what came of it, in a final state each.

A sweep's trial is one Optuna trial with the mixing ratio of its release as one more parameter; the
other mixtures that it released are added as completed trials of their own ratio. So every operating
point is an observation, and the sampler learns the whole curve from one training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from generalist_core.config import Ratio, TrainConfig
from generalist_core.config.codec import to_dict
from generalist_core.config.mixing import as_ratio
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.validation import InvalidConfigError
from search.config import Floor
from search.front.points import point_to_dict, trial_id
from search.study.failures import Failure
from search.study.records import (
    Observation,
    Proposal,
    RejectedError,
)
from search.study.results import Results
from search.study.samplers import SamplerOf, experimental
from search.study.sampling import Sampling
from search.study.trials import (
    Goals,
    as_of,
    missing_siblings,
    parameters_of,
    proposal_of,
    running,
    seen,
)
from spaces import Space
from spaces.release_ratio import nearest, ratio_params, suggest_ratio

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
                directions=["maximize"] * len(self.goals.objectives),
            )
        except optuna.exceptions.DuplicatedStudyError as error:
            raise InvalidConfigError(
                f"`a new study` must be begun, but {name!r} is there."
            ) from error
        with experimental():
            study.set_metric_names(list(self.goals.objectives))
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
        self._sampling = Sampling(self.sampler_of, len(self.goals.objectives))
        self._unshown: deque[list[FrozenTrial]] = deque()
        self.results = Results(self.study, self.goals)
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            self.results.take_in(trial)
        told: dict[int, list[FrozenTrial]] = {}
        for trial in trials:
            if "origin" in trial.user_attrs:
                self._unshown.append([trial])
            elif trial.state.is_finished():
                told.setdefault(trial.user_attrs["told_as"], []).append(trial)
        for _, ended in sorted(told.items()):
            self._unshown.append(ended)
            self.results.learn(ended)
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
        for trial in self.results.asked():
            if trial.state == TrialState.COMPLETE:
                self.study.add_trials(self._missing_siblings(trial))
        self._read()
        unfinished = [trial for trial in self.results.asked() if not trial.state.is_finished()]
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
        asked = self.results.trial(trial)
        n_told = asked.user_attrs["asked_after"]
        past = Ledger(
            InMemoryStorage(),
            self.goals.objectives,
            sampler_of=self.sampler_of,
            floors=self.goals.floors,
        )
        earlier = self.study.get_trials(deepcopy=False)[: asked.number]
        past.study.add_trials([as_of(known, n_told) for known in earlier])
        past.resume()
        return past

    def pause(self, trial: str) -> None:
        """Leave a running trial for `resume`."""
        self.storage.set_trial_state_values(self.results.trial(trial)._trial_id, TrialState.WAITING)

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
        name = trial_id(self.results.n_asked)
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
            if not self.results.has_failed(config):
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
        self.results.take_in(self.study.get_trials(deepcopy=False)[-1])

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
        ratio = as_ratio(self.results.trial(trial).user_attrs["mixing_ratio"])
        own = next(point for point in points if point.mixing_ratio == ratio)
        about: dict[str, Any] = {"n_images": own.n_images, "epoch": own.epoch, "cost": dict(cost)}
        if trained is not None:
            about["config"] = to_dict(trained)
        about["points"] = [point_to_dict(point) for point in points]
        self._close(trial, TrialState.COMPLETE, about, accuracies=own.accuracies)
        self.results.take_in(self.results.trial(trial))
        siblings = self._missing_siblings(self.results.trial(trial))
        self.study.add_trials(siblings)
        self._take_in(trial, [self.results.trial(trial), *siblings])

    def tell_failed(
        self, trial: str, failure: Failure, cost: Mapping[str, float] | None = None
    ) -> None:
        """Close a trial that came to nothing, at what it cost."""
        about = {"failure": failure.to_dict(), "cost": dict(cost or {})}
        self._close(trial, TrialState.FAIL, about)
        self._take_in(trial, [self.results.trial(trial)])

    def tell_stopped(
        self, trial: str, epoch: int, cost: Mapping[str, float], accuracies: Mapping[str, float]
    ) -> None:
        """Close a trial that was stopped early, after `epoch` epochs with these `accuracies`."""
        about = {"stopped_at": epoch, "accuracies": dict(accuracies), "cost": dict(cost)}
        self._close(trial, TrialState.PRUNED, about)
        self._take_in(trial, [self.results.trial(trial)])

    def _close(
        self,
        trial: str,
        state: TrialState,
        about: Mapping[str, Any],
        accuracies: Mapping[str, float] | None = None,
    ) -> None:
        """Write how a trial ended, its state last: after a crash before that it has not ended."""
        live = optuna.Trial(self.study, self.results.trial(trial)._trial_id)
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

    def _take_in(self, name: str, trials: Sequence[FrozenTrial]) -> None:
        """Learn from a trial that ended, with its siblings, or from an observation."""
        self.sampling.tell(name, seen(trials, self.goals))
        self.results.learn(trials)

    def _missing_siblings(self, asked: FrozenTrial) -> list[FrozenTrial]:
        later = self.study.get_trials(deepcopy=False)[asked.number :]
        return missing_siblings(asked, later, self.goals)
