"""What samplers see: thinned observations, and every running trial."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from generalist_core.config.presets import short
from search.front.front import non_dominated
from search.study.failures import Failure
from search.study.ledger import Ledger
from search.study.records import Observation
from search.study.samplers import OBSERVATION_LIMITS, build_samplers
from search.study.sampling import SLACK, Sampling, thinned
from spaces import SPACES
from tests.helpers.ledgers import COST, new_ledger, release
from tests.helpers.points import OBJECTIVES

RANGE = FloatDistribution(0.0, 1.0)
LIMIT = 40


class FewSampler(RandomSampler):
    """A sampler that can model only few observations."""


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBSERVATION_LIMITS, FewSampler, LIMIT)


def observed(values: Sequence[float] | None, x: float = 0.5) -> FrozenTrial:
    """An observation; without values it is that of a stopped trial."""
    state = TrialState.PRUNED if values is None else TrialState.COMPLETE
    return create_trial(
        state=state,
        values=None if values is None else list(values),
        params={"x": x},
        distributions={"x": RANGE},
    )


def cloud(n: int, seed: int = 0, stopped: float = 0.2) -> list[FrozenTrial]:
    """Observations of two objectives at random, `x` telling them apart, some without values."""
    source = np.random.default_rng(seed)
    return [
        observed(None if source.random() < stopped else source.random(2).tolist(), x=i / n)
        for i in range(n)
    ]


def best(observations: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The observations that no other dominates."""
    complete = [trial for trial in observations if trial.state == TrialState.COMPLETE]
    kept = non_dominated(np.array([trial.values for trial in complete]))
    return [trial for trial, keep in zip(complete, kept, strict=True) if keep]


def xs(observations: Sequence[FrozenTrial]) -> list[float]:
    return [trial.params["x"] for trial in observations]


def shown(sampling: Sampling) -> list[FrozenTrial]:
    """The observations that the sampler learns from."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return sampling._study.get_trials(deepcopy=False, states=states)


# Thinning


@pytest.mark.parametrize("n", [0, 1, LIMIT])
def test_up_to_the_limit_all_are_kept(n: int) -> None:
    observations = cloud(n)
    assert thinned(observations, LIMIT) == observations


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [LIMIT + 1, 50, 400])
def test_above_the_limit_as_many_as_it_allows_are_kept_and_the_best_among_them(
    seed: int, n: int
) -> None:
    observations = cloud(n, seed)
    kept = thinned(observations, LIMIT)
    assert len(kept) == LIMIT
    assert 0 < len(best(observations)) <= LIMIT // 2
    assert set(xs(best(observations))) <= set(xs(kept))


def test_of_too_many_best_ones_the_latest_are_kept() -> None:
    line = [observed([i / 99, 1 - i / 99], x=i / 99) for i in range(100)]
    assert xs(thinned(line, LIMIT))[-LIMIT // 2 :] == xs(line)[-LIMIT // 2 :]


def test_of_equal_ones_the_latest_are_kept() -> None:
    same = [observed([0.5, 0.5], x=i / 99) for i in range(100)]
    assert xs(thinned(same, LIMIT))[-LIMIT // 2 :] == xs(same)[-LIMIT // 2 :]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_stays(seed: int) -> None:
    kept = xs(thinned(cloud(300, seed), LIMIT))
    assert all(a < b for a, b in pairwise(kept))


def test_the_rest_is_spread_from_first_to_last() -> None:
    """Each is better than the last: of the first 380, 20 at equal distances are kept."""
    rising = [observed([i / 400, i / 400], x=i / 400) for i in range(400)]
    kept = xs(thinned(rising, LIMIT))
    assert kept[20:] == xs(rising[-20:])
    steps = np.diff(np.array(kept[:20]) * 400)
    assert (kept[0], kept[19]) == (0.0, 379 / 400)
    assert set(steps.round()) <= {19, 20, 21}


def test_where_all_were_stopped_some_of_them_are_kept() -> None:
    assert len(thinned(cloud(100, stopped=1.0), LIMIT)) == LIMIT


# The sampler's study


def test_what_a_sampler_is_shown_is_bounded_and_holds_the_best() -> None:
    sampling, told = Sampling(lambda _: FewSampler(), 2), cloud(500)
    for i, observation in enumerate(told, 1):
        sampling.tell("", [observation])
        assert min(i, LIMIT) <= len(shown(sampling)) <= SLACK * LIMIT
    assert set(xs(best(told))) <= set(xs(shown(sampling)))
    assert xs(shown(sampling))[-1] == xs(told)[-1]


def test_a_sampler_without_a_limit_is_shown_all() -> None:
    sampling, told = Sampling(lambda _: RandomSampler(), 2), cloud(500)
    sampling.tell("", told)
    assert xs(shown(sampling)) == xs(told)


@pytest.mark.parametrize(("name", "limit"), [("tpe", 250), ("gp", 150), ("nsga2", None)])
def test_the_samplers_that_slow_down_have_limits(name: str, limit: int | None) -> None:
    assert Sampling(build_samplers(name, seed=0, n_startup=5), 2).limit == limit


def test_a_running_trial_survives_thinning_and_can_be_told() -> None:
    sampling = Sampling(lambda _: FewSampler(seed=0), 2)
    for name in ("before", "told between", "after"):
        sampling.ask(name).suggest_float("x", 0.0, 1.0)
    params = {name: sampling.asked(name).params for name in ("before", "after")}
    old = sampling._study
    sampling.tell("", cloud(60))
    sampling.tell("told between", [observed([0.1, 0.2])])
    sampling.tell("", cloud(60, seed=1))
    assert sampling._study is not old
    for name, expected in params.items():
        assert sampling.asked(name).params == expected
        assert sampling.asked(name).state == TrialState.RUNNING
    for name in params:
        sampling.tell(name, [observed([1.0, 1.0], x=0.123)])
    running = [TrialState.RUNNING, TrialState.WAITING]
    assert not sampling._study.get_trials(states=running)
    assert xs(shown(sampling))[-2:] == [0.123] * 2


def test_a_trial_that_fails_shows_the_sampler_nothing() -> None:
    sampling = Sampling(lambda _: RandomSampler(), 2)
    sampling.ask("a").suggest_float("x", 0.0, 1.0)
    sampling.tell("a", [])
    assert shown(sampling) == []
    assert not sampling._study.get_trials(states=[TrialState.RUNNING])


def test_fixed_parameters_hold_until_the_next_is_asked() -> None:
    sampling = Sampling(lambda _: RandomSampler(seed=0), 2)
    fixed = sampling.ask("a", {"x": 0.25})
    assert fixed.suggest_float("x", 0.0, 1.0) == 0.25
    assert fixed.suggest_float("y", 0.0, 1.0) != 0.25
    sampling.tell("", cloud(5))
    assert fixed.suggest_float("z", 0.0, 1.0) != 0.25
    free = [sampling.ask(str(i)).suggest_float("x", 0.0, 1.0) for i in range(5)]
    assert 0.25 not in free
    assert sampling.ask("b", {"x": 0.75}).suggest_float("x", 0.0, 1.0) == 0.75


def test_what_is_enqueued_is_suggested_next_and_once() -> None:
    sampling = Sampling(lambda _: RandomSampler(seed=0), 2)
    sampling.enqueue({"x": 0.25})
    found = [sampling.ask(str(i)).suggest_float("x", 0.0, 1.0) for i in range(3)]
    assert found[0] == 0.25
    assert 0.25 not in found[1:]


# Behind a ledger


class Watching(RandomSampler):
    """Notes how many observations there are when it is asked."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.seen: list[list[list[float] | None]] = []

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        self.seen.append([t.values for t in study.get_trials(states=states)])


def test_a_reopened_ledger_shows_the_sampler_what_was_observed_before() -> None:
    storage = InMemoryStorage()
    first = new_ledger(storage=storage)
    done, stopped, failed, unfinished = (first.ask(SPACES["smoke"], short()) for _ in range(4))
    first.tell_released(done.trial, release(done), COST)
    first.tell_stopped(stopped.trial, 1, COST, {"natural": 0.5, "robust": 0.25})
    first.tell_failed(failed.trial, Failure(kind="worker-died", reason="planted"))
    known = Observation(
        params=done.params, accuracies={"natural": 0.125, "robust": 0.25}, origin="elsewhere"
    )
    first.observe(known, SPACES["smoke"], short())
    sampler = Watching()
    again = ledger_with(sampler, storage)
    again.ask(SPACES["smoke"], short())
    (seen,) = sampler.seen
    assert [0.125, 0.25] in seen
    assert seen.count(None) == 1
    assert len(seen) == len(release(done)) + 1 + 1
    again.tell_released(unfinished.trial, release(unfinished), COST)
    assert again.results.counts().completed == 2


def ledger_with(sampler: BaseSampler, storage: InMemoryStorage) -> Ledger:
    return Ledger(storage, OBJECTIVES, sampler_of=lambda _: sampler, is_new=False)


def test_a_long_sweep_is_thinned_for_its_sampler_and_not_in_its_study() -> None:
    ledger = Ledger(InMemoryStorage(), OBJECTIVES, sampler_of=lambda _: FewSampler(seed=0))
    running = [ledger.ask(SPACES["smoke"], short()) for _ in range(3)]
    for _ in range(30):
        proposal = ledger.ask(SPACES["smoke"], short())
        ledger.tell_released(proposal.trial, release(proposal), COST)
    for proposal in running:
        ledger.tell_released(proposal.trial, release(proposal), COST)
    assert len(ledger.results.points()) == sum(len(release(p)) for p in running) + 30 * 4
    assert len(shown(ledger.sampling)) <= SLACK * LIMIT
    assert {point.trial for point in ledger.results.points()} == {f"{i:04d}" for i in range(33)}
    assert ledger.results.counts().completed == 33
