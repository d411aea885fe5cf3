"""What a sampler sees: a study in memory, thinned to what it can model in reasonable time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import moocore
import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from generalist_core.randomness import derive_seed
from search.study.samplers import OBSERVATION_LIMITS, SamplerOf, fixing
from search.study.trials import as_running

SLACK = 1.25
"""A thinned study may grow by this factor before it is thinned again."""


N_MODELLED = 10
"""Attempts by the sampler, which may model one configuration as the best again and again."""


class Sampling:
    """A sampler with the observations that it learns from: all, or about `limit` of them.

    The time of a suggestion grows with the number of observations, of which a sweep makes several
    per trial. Therefore `OBSERVATION_LIMITS` of `search.study.samplers` sets a limit. The best ones
    are kept: TPE, for example, models the best 25 separately, however many there are, and the rest
    only as a density.
    """

    def __init__(self, sampler_of: SamplerOf, n_objectives: int) -> None:
        self.sampler_of = sampler_of
        self.n_objectives = n_objectives
        self.limit = OBSERVATION_LIMITS.get(type(sampler_of("")))
        self.enqueued: list[dict[str, Any]] = []
        self._running: dict[str, int] = {}
        self._known: dict[str, FrozenTrial] = {}
        self._study = self._new_study()

    def enqueue(self, params: Mapping[str, Any]) -> None:
        """Make these parameters the next suggestion, after those enqueued before."""
        self.enqueued.append(dict(params))

    def know(self, trial: FrozenTrial) -> None:
        """Take in the distributions of a trial of the sweep: later ones must be compatible."""
        for name in trial.params:
            self._known.setdefault(name, trial)

    def ask(
        self, name: str, fixed: Mapping[str, Any] | None = None, attempt: int = 0
    ) -> optuna.Trial:
        """A trial that suggests parameters, until the next one is asked.

        The parameters in `fixed` are given. The trial runs until it is told. Another `attempt`
        gives other suggestions, from `N_MODELLED` on random ones; only the first takes what is
        enqueued, which thus belongs to one trial each. Optuna raises a ValueError where it cannot
        model a parameter: its kind, or its choices, are not as before.
        """
        self._settle()
        self._register()
        sampler = self.sampler_of(f"{name}/{attempt}" if attempt else name)
        if attempt >= N_MODELLED:
            sampler = RandomSampler(seed=derive_seed(0, "attempt", name, attempt) % 2**32)
        self._study.sampler = fixing(sampler, fixed) if fixed is not None else sampler
        if self.enqueued and attempt == 0:
            self._study.enqueue_trial(self.enqueued.pop(0))
        asked = self._study.ask()
        self._running[name] = asked.number
        return asked

    def add_running(self, name: str, trial: FrozenTrial) -> None:
        """Add a running trial that was asked elsewhere."""
        self._running[name] = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(as_running(trial))

    def asked(self, name: str) -> FrozenTrial:
        """A running trial with the parameters that were suggested so far."""
        return self._study.get_trials(deepcopy=False)[self._running[name]]

    def tell(self, name: str, observations: Sequence[FrozenTrial]) -> None:
        """End a trial if it is running, and show the sampler its observations."""
        number = self._running.pop(name, None)
        if number is not None:
            self._study.tell(number, state=TrialState.FAIL)
        self._study.add_trials(observations)
        if self.limit is not None and len(self._observations()) > SLACK * self.limit:
            self._thin(self.limit)

    def _settle(self) -> None:
        """Bring the study to the state that it would have if it had just been opened.

        Running trials come after all observations. What a sampler stored in the study is removed,
        as the sampler may have known less then.
        """
        study = self._storage.get_study_id_from_name(self._study.study_name)
        for key in self._storage.get_study_system_attrs(study):
            self._storage.set_study_system_attr(study, key, None)
        for name, number in self._running.items():
            trial = self.asked(name)
            self._study.tell(number, state=TrialState.FAIL)
            self.add_running(name, trial)

    def _register(self) -> None:
        """Write the known distributions to the study; Optuna takes in none of added trials."""
        missing = {n: trial for n, trial in self._known.items() if n not in self._registered}
        if not missing:
            return
        study = self._storage.get_study_id_from_name(self._study.study_name)
        holder = self._storage.create_new_trial(study)
        for name, trial in missing.items():
            distribution = trial.distributions[name]
            value = distribution.to_internal_repr(trial.params[name])
            self._storage.set_trial_param(holder, name, value, distribution)
        self._storage.set_trial_state_values(holder, TrialState.FAIL)
        self._registered |= missing.keys()

    def _observations(self) -> list[FrozenTrial]:
        seen = (TrialState.COMPLETE, TrialState.PRUNED)
        return self._study.get_trials(deepcopy=False, states=seen)

    def _thin(self, limit: int) -> None:
        """Begin a new study with the observations to keep and the running trials."""
        kept = thinned(self._observations(), limit)
        running = {name: self.asked(name) for name in self._running}
        self._study = self._new_study()
        self._study.add_trials(kept)
        for name, trial in running.items():
            self.add_running(name, trial)

    def _new_study(self) -> optuna.Study:
        self._storage, self._registered = InMemoryStorage(), set[str]()
        return optuna.create_study(
            storage=self._storage,
            sampler=self.sampler_of(""),
            directions=["maximize"] * self.n_objectives,
        )


def thinned(observations: Sequence[FrozenTrial], limit: int) -> list[FrozenTrial]:
    """At most `limit` observations, in their order.

    Half of them are the best by non-dominated sorting, of equally good ones the later. The other
    half is spread evenly over the rest, to which trials without values belong.
    """
    if len(observations) <= limit:
        return list(observations)
    valued = [i for i, trial in enumerate(observations) if trial.state == TrialState.COMPLETE]
    ranks = np.full(len(observations), np.inf)
    if valued:
        values = np.array([observations[i].values for i in valued])
        ranks[valued] = moocore.pareto_rank(values, maximise=True)
    by_rank = sorted(range(len(observations)), key=lambda i: (ranks[i], -i))
    best, others = by_rank[: limit // 2], sorted(by_rank[limit // 2 :])
    spread = np.linspace(0, len(others) - 1, limit - len(best)).round().astype(int)
    return [observations[i] for i in sorted({*best, *(others[i] for i in spread)})]
