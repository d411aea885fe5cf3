"""The ledger writes the Optuna study of a sweep: what was asked, and how each trial ended.

A trial of the sweep is one Optuna trial, with the mixing ratio of its release as one more
parameter. The other mixtures that it releases are added as completed trials with their own ratio,
its siblings. So every mixture is an observation, and the sampler learns the whole curve from one
training. The global learner has no mixing ratio, and is not shown to the sampler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
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
from search.errors import SweepFolderError
from search.front.points import point_to_dict, trial_id
from search.study.consistency import require_consistent
from search.study.failures import Failure
from search.study.records import Observation, Proposal, RejectedError
from search.study.results import Results
from search.study.samplers import SamplerOf, experimental
from search.study.sampling import Sampling
from search.study.trials import (
    Goals,
    as_of,
    as_running,
    missing_siblings,
    observations_of,
    parameters_of,
    proposal_of,
)
from spaces import Space
from spaces.grid import NoGridError
from spaces.protocol import configuration_of
from spaces.release_ratio import nearest, ratio_params, suggest_ratio

MAX_ATTEMPTS = 20
"""How often a suggestion may be what was tried before, until the space is searched for the rest."""


class Ledger:
    """The study behind a sweep: trials are asked and told here, and `results` are read.

    `guard` is called before each write, and raises an error if this process must not write.
    """

    def __init__(
        self,
        storage: BaseStorage,
        objectives: Sequence[str],
        *,
        sampler_of: SamplerOf = lambda _: RandomSampler(),
        floors: Sequence[Floor] = (),
        study: str = "generalist-search",
        is_new: bool = True,
        place: str = "memory",
    ) -> None:
        """Begin the study of that name, or open an existing one; messages call its storage `place`.

        Raises:
            InvalidConfigError: the name of a new study exists, or that of an old one does not.
            SweepFolderError: the study is not one that a ledger wrote, see `require_consistent`.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.goals = Goals(objectives=tuple(objectives), floors=tuple(floors))
        self.storage, self.place = storage, place
        self.guard: Callable[[], None] = lambda: None
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
                f"A new study must have a new name, but {self.place} has a study {name!r}."
            ) from error
        with experimental():
            study.set_metric_names(list(self.goals.objectives))
        return study

    def _open(self, name: str) -> optuna.Study:
        try:
            return optuna.load_study(study_name=name, storage=self.storage, sampler=RandomSampler())
        except KeyError as error:
            raise InvalidConfigError(
                f"The study {name!r} of sweep.json must be in {self.place}, but is not. Restore "
                "the damaged one of the two from a copy."
            ) from error

    def _read(self) -> None:
        """Read the whole study; the trials that ended are taken in the order they were told."""
        self._sampling = Sampling(self.sampler_of, len(self.goals.objectives))
        self._not_shown: deque[list[FrozenTrial]] = deque()
        self.results = Results(self.study, self.goals)
        trials = self.study.get_trials(deepcopy=False)
        try:
            require_consistent(trials)
        except SweepFolderError as error:
            raise SweepFolderError(f"{error} It is in {self.place}.") from error
        for trial in trials:
            self._sampling.know(trial)
            self.results.add_asked(trial)
        told: dict[int, list[FrozenTrial]] = {}
        for trial in trials:
            if "origin" in trial.user_attrs:
                self._not_shown.append([trial])
            elif trial.state.is_finished():
                told.setdefault(trial.user_attrs["told_as"], []).append(trial)
        for _, ended in sorted(told.items()):
            self._not_shown.append(ended)
            self.results.add_ended(ended)
        self._n_told = 1 + max(told, default=-1)

    @property
    def sampling(self) -> Sampling:
        """What the sampler sees; an existing study is shown to it when it is first needed."""
        while self._not_shown:
            ended = self._not_shown.popleft()
            self._sampling.tell("", observations_of(ended, self.goals))
        return self._sampling

    def resume(self) -> list[Proposal]:
        """Repair what a crash left undone, and return the trials to continue, which run again.

        Siblings that a completed trial still lacks are added. A trial that cannot continue is
        closed as failed.
        """
        self.guard()
        for trial in self.results.asked():
            if trial.state == TrialState.COMPLETE:
                self.study.add_trials(self._missing_siblings(trial))
        self._read()
        unfinished = [trial for trial in self.results.asked() if not trial.state.is_finished()]
        return [proposal for trial in unfinished if (proposal := self._continue(trial)) is not None]

    def _continue(self, trial: FrozenTrial) -> Proposal | None:
        name = trial.user_attrs["trial"]
        if trial.state == TrialState.WAITING:
            self.storage.set_trial_state_values(self._id_of(name), TrialState.RUNNING)
        self.sampling.add_running(name, trial)
        try:
            return proposal_of(trial)
        except (KeyError, InvalidConfigError) as error:
            reason = f"cannot continue, its configuration is incomplete or invalid: {error}"
            self.tell_failed(name, Failure(kind="orphan", reason=reason))
            return None

    def before(self, trial: str) -> Ledger:
        """A ledger in memory with the state of this one at the moment that trial was asked."""
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

    def note_end(self, *, has_ended: bool) -> None:
        """Note whether the sweep has ended, by itself or by its time budget, or may go on."""
        self.guard()
        self.study.set_user_attr("has_ended", has_ended)

    @property
    def has_ended(self) -> bool:
        """Whether the sweep has ended; where no end was noted, whether all of its trials have."""
        counts = self.results.counts()
        noted = self.study.user_attrs.get("has_ended", counts.total > 0)
        return counts.unfinished == 0 and bool(noted)

    def pause(self, trial: str) -> None:
        """Leave a running trial for `resume`."""
        self.guard()
        self.storage.set_trial_state_values(self._id_of(trial), TrialState.WAITING)

    def enqueue(
        self, params: Mapping[str, float | int | str], ratio: Ratio, n_experts: int
    ) -> None:
        """Make these parameters the next proposal, after those enqueued before."""
        self.sampling.enqueue({**params, **ratio_params(ratio, n_experts)})

    def ask(
        self,
        space: Space,
        base: TrainConfig,
        fixed: Mapping[str, Any] | None = None,
        *,
        member: int | None = None,
    ) -> Proposal:
        """The next trial to run; the sampler suggests the parameters that are not in `fixed`.

        The trial is in the study before it is returned. No configuration is trained twice, unless
        its first trial was lost. The ratio of its release alone makes no other training.

        Raises:
            RejectedError: the space made no valid configuration from the suggestion, or has
                infinitely many, of which the sampler suggested only some that were tried before.
            ExhaustedError: all configurations of the space were tried before.
        """
        name = trial_id(self.results.n_asked)
        for attempt in range(MAX_ATTEMPTS):
            proposal = self._suggested(name, space, base, fixed, attempt, member)
            if not self.results.was_tried(proposal.config):
                return self._begun(proposal)
        try:
            params = self.results.untried(space, base, fixed)
        except NoGridError as error:
            reason = "the sampler keeps suggesting what was tried before"
            raise self._rejected(name, reason) from error
        return self._begun(self._suggested(name, space, base, params, MAX_ATTEMPTS, member))

    def _suggested(
        self,
        name: str,
        space: Space,
        base: TrainConfig,
        fixed: Mapping[str, Any] | None,
        attempt: int,
        member: int | None,
    ) -> Proposal:
        self.sampling.tell(name, [])
        asked = self.sampling.ask(name, fixed, attempt)
        try:
            config = configuration_of(space, asked, base)
            ratio = nearest(suggest_ratio(asked, len(base.experts)), base.evaluation.release_ratios)
        except ValueError as error:
            reason = f"the space made an invalid configuration: {error}"
            raise self._rejected(name, reason) from error
        return Proposal(
            trial=name,
            config=config,
            mixing_ratio=ratio,
            params=dict(asked.params),
            member=member,
        )

    def _begun(self, proposal: Proposal) -> Proposal:
        of_member = {} if proposal.member is None else {"member": proposal.member}
        attributes = {"config": to_dict(proposal.config), "mixing_ratio": proposal.mixing_ratio}
        self._record(proposal.trial, {**attributes, **of_member})
        return proposal

    def _rejected(self, name: str, reason: str) -> RejectedError:
        self._record(name, {})
        self.tell_failed(name, Failure(kind="invalid", reason=reason))
        return RejectedError(name, reason)

    def _record(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Write a trial that begins to the study, in one step."""
        self.guard()
        attributes = {"trial": name, "asked_after": self._n_told, **attributes}
        asked = self.sampling.asked(name)
        self.sampling.know(asked)
        self.study.add_trial(as_running(asked, attributes))
        self.results.add_asked(self.study.get_trials(deepcopy=False)[-1])

    def tell_released(
        self,
        trial: str,
        points: Sequence[OperatingPoint],
        cost: Mapping[str, float],
        *,
        trained: TrainConfig | None = None,
    ) -> None:
        """Complete a trial with the point of the ratio that it was asked for; add its siblings.

        `trained` is its configuration if that is not the one proposed.
        """
        ratio = as_ratio(self.results.trial(trial).user_attrs["mixing_ratio"])
        point = next(point for point in points if point.mixing_ratio == ratio)
        attributes: dict[str, Any] = {
            "n_images": point.n_images,
            "epoch": point.epoch,
            "cost": dict(cost),
            **({} if trained is None else {"config": to_dict(trained)}),
            "points": [point_to_dict(point) for point in points],
        }
        self._close(trial, TrialState.COMPLETE, attributes, accuracies=point.accuracies)
        completed = self.results.trial(trial)
        self.results.add_asked(completed)
        siblings = self._missing_siblings(completed)
        self.study.add_trials(siblings)
        self._learn(trial, [completed, *siblings])

    def tell_failed(
        self, trial: str, failure: Failure, cost: Mapping[str, float] | None = None
    ) -> None:
        """Close a trial that failed, with what it cost."""
        attributes = {"failure": failure.to_dict(), "cost": dict(cost or {})}
        self._close(trial, TrialState.FAIL, attributes)
        self._learn(trial, [self.results.trial(trial)])

    def tell_stopped(
        self, trial: str, epoch: int, cost: Mapping[str, float], accuracies: Mapping[str, float]
    ) -> None:
        """Close a trial that was stopped early, after `epoch` epochs with these `accuracies`."""
        attributes = {"stopped_at": epoch, "accuracies": dict(accuracies), "cost": dict(cost)}
        self._close(trial, TrialState.PRUNED, attributes)
        self._learn(trial, [self.results.trial(trial)])

    def _close(
        self,
        trial: str,
        state: TrialState,
        attributes: Mapping[str, Any],
        accuracies: Mapping[str, float] | None = None,
    ) -> None:
        """Write how a trial ended, its state last: after a crash before that it has not ended."""
        self.guard()
        live = optuna.Trial(self.study, self._id_of(trial))
        for name, value in {**attributes, "told_as": self._n_told}.items():
            live.set_user_attr(name, value)
        values = None
        if accuracies is not None:
            values = self.goals.values(accuracies)
            for name, violation in self.goals.violations(accuracies).items():
                live.set_constraint(name, violation)
        self.study.tell(live.number, values, state=state)
        self._n_told += 1

    def observe(self, observation: Observation, space: Space, base: TrainConfig) -> None:
        """Let the sampler learn from an observation made elsewhere; it is no point of the front.

        Raises:
            InvalidConfigError: its parameters make no configuration of the space.
        """
        self.guard()
        fixed = parameters_of(observation, space, base)
        trial = self.goals.completed(
            fixed.params,
            fixed.distributions,
            observation.accuracies,
            {"origin": observation.origin},
        )
        self._sampling.know(trial)
        self.study.add_trial(trial)
        self._learn("", [trial])

    def _learn(self, name: str, trials: Sequence[FrozenTrial]) -> None:
        """Learn from a trial that ended, with its siblings, or from an observation."""
        self.sampling.tell(name, observations_of(trials, self.goals))
        self.results.add_ended(trials)

    def _missing_siblings(self, asked: FrozenTrial) -> list[FrozenTrial]:
        later = self.study.get_trials(deepcopy=False)[asked.number :]
        return missing_siblings(asked, later, self.goals)

    def _id_of(self, trial: str) -> int:
        """The id of a trial in the storage."""
        study = self.storage.get_study_id_from_name(self.study.study_name)
        number = self.results.trial(trial).number
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)
