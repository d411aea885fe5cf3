"""Whole searches on simulated trainings: sharing, stopping, lineages, and the order of workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from benchmarks.simulated_loop import run_here
from benchmarks.simulator import SimulatedTrainer, WarmupsInMemory, World
from generalist_core.config import SGD, TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.training.cost import evaluation_cost, update_cost
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.warmups import warming, warmup_keys
from search.config import SuccessiveHalving, SweepConfig
from search.running.trial import Training, with_release_ratio
from search.scheduling.callbacks import Callback
from search.scheduling.early_stopping import Decision, Rungs
from search.scheduling.lineages import LineageProposer
from search.scheduling.proposers import build_proposer
from search.scheduling.searcher import Rules, Searcher
from search.study.ledger import Ledger
from search.study.records import Proposal
from search.study.results import Results
from search.study.samplers import N_STARTUP, build_samplers
from spaces import SPACES, Space, tune_float
from tests import ROOT
from tests.helpers.problems import with_expert

WORLD = World()
FINAL = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


def judged_every(epochs: int) -> TrainConfig:
    """The base of most searches; judged at the end only where `epochs` is 16."""
    return replace_at(short(), "evaluation.every_epochs", epochs)


class CountingWarmups(WarmupsInMemory):
    """Counts how often each state was trained."""

    def __init__(self) -> None:
        super().__init__()
        self.published: Counter[tuple[str, int]] = Counter()

    def publish(
        self, key: str, epoch: int, state: Mapping[str, Any], about: Mapping[str, Any]
    ) -> None:
        self.published[key, epoch] += 1
        super().publish(key, epoch, state, about)


class NotingRungs(Rungs):
    """Notes which trials were stopped, with the rung and the result there."""

    def __init__(self, halving: SuccessiveHalving) -> None:
        super().__init__(halving)
        self.stops: dict[str, tuple[int, list[float]]] = {}

    def report(self, trial: str, rung: str, points: Any, **others: Any) -> Decision:
        decision = super().report(trial, rung, points, **others)
        if decision.stop:
            self.stops[trial] = (int(rung.split("@")[1]), points[0])
        return decision


class Following(Callback):
    """Keeps the order of the trials' epochs, and the hypervolume after every trial."""

    def __init__(self) -> None:
        self.hypervolumes: list[float] = []
        self.order: list[str] = []

    def on_metrics(self, trial: str, _: Mapping[str, Any]) -> None:
        self.order.append(trial)

    def on_completed(self, _: str, __: Sequence[OperatingPoint], results: Results) -> None:
        self.hypervolumes.append(results.front().hypervolume)


@dataclass
class Found:
    """A search that has ended, with its parts."""

    ledger: Ledger
    searcher: Searcher
    trainings: dict[str, Training]
    hypervolumes: list[float]
    order: list[str]

    @property
    def points(self) -> list[tuple[str, Mapping[str, float]]]:
        return [(point.name, point.accuracies) for point in self.ledger.results.points()]

    @property
    def front(self) -> list[tuple[str, Mapping[str, float]]]:
        return [(point.name, point.accuracies) for point in self.ledger.results.front().points]

    @property
    def states(self) -> set[TrialState]:
        return {trial.state for trial in self.ledger.study.get_trials(deepcopy=False)}

    def cost(self, name: str = "forward_images") -> float:
        return self.ledger.results.cost()[name]


def search(
    space: str | Space,
    n_trials: int,
    *,
    base: TrainConfig | None = None,
    sampler: str = "random",
    seed: int = 0,
    n_workers: int = 1,
    warmups: WarmupsInMemory | None = None,
    rungs: Rungs | None = None,
) -> Found:
    """A search as a sweep would run it, in this process."""
    base, follower = base or short(), Following()
    function = SPACES[space] if isinstance(space, str) else space
    built = build_samplers(sampler, seed=seed, n_startup=N_STARTUP)
    ledger = Ledger(InMemoryStorage(), base.evaluation.objective_names, sampler_of=built)
    proposer = build_proposer(ledger, function, SweepConfig(base=base), WORLD.images)
    proposer.enqueue_first()
    searcher = Searcher(
        proposer,
        n_trials=n_trials,
        n_workers=n_workers,
        callback=follower,
        rules=Rules(rungs=rungs),
    )
    trainings: dict[str, Training] = {}

    def begin(proposal: Proposal) -> Training:
        config = with_release_ratio(proposal.config, proposal.mixing_ratio)
        trainings[proposal.trial] = Training(SimulatedTrainer(config, WORLD), warmups)
        return trainings[proposal.trial]

    run_here(searcher, begin)
    return Found(ledger, searcher, trainings, follower.hypervolumes, follower.order)


# Determinism


def ours(space: str, seed: int = 0) -> Found:
    """All parts of a search at once."""
    return search(
        space,
        25,
        sampler="tpe",
        seed=seed,
        n_workers=2,
        warmups=WarmupsInMemory(),
        rungs=Rungs(SuccessiveHalving()),
    )


@pytest.mark.slow
@pytest.mark.parametrize("space", ["full", "lineages"])
def test_equal_seeds_give_equal_searches_and_others_do_not(space: str) -> None:
    first, same, other = ours(space), ours(space), ours(space, seed=1)
    assert first.points == same.points
    assert first.cost() == same.cost()
    assert first.points != other.points


def print_front() -> None:
    found = ours("lineages", seed=1)
    sys.stdout.write(json.dumps([found.front, found.cost()]))


@pytest.mark.slow
def test_processes_that_hash_otherwise_find_the_same_front() -> None:
    code, printed = f"from {__name__} import print_front; print_front()", []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        printed.append(json.loads(done.stdout))
    assert len(printed[0][0]) > 1
    assert printed[0] == printed[1]


# Sharing


@pytest.mark.parametrize("n_workers", [1, 3])
def test_sharing_changes_the_cost_and_nothing_else(n_workers: int) -> None:
    base = judged_every(16)
    alone = search("mixing", 20, base=base, n_workers=n_workers)
    shared = search("mixing", 20, base=base, n_workers=n_workers, warmups=WarmupsInMemory())
    assert shared.points == alone.points
    assert shared.hypervolumes[-1] == alone.hypervolumes[-1]
    assert alone.cost("reused_forward_images") == 0
    assert shared.cost() < alone.cost()
    assert shared.cost() + shared.cost("reused_forward_images") == alone.cost()


@pytest.mark.slow
@pytest.mark.parametrize("space", ["mixing", "full"])
@pytest.mark.parametrize("n_workers", [2, 4, 7])
def test_workers_never_train_a_warm_up_twice(space: str, n_workers: int) -> None:
    base, warmups = judged_every(1), CountingWarmups()
    one = search(space, 25, base=base, warmups=WarmupsInMemory())
    many = search(space, 25, base=base, n_workers=n_workers, warmups=warmups)
    assert set(warmups.published.values()) == {1}
    assert not warmups.claimed
    assert many.points == one.points
    assert many.cost() == one.cost()
    assert many.cost("reused_forward_images") == one.cost("reused_forward_images")


def test_the_worker_that_is_behind_goes_first() -> None:
    """Trials of equal cost, three at a time: none is ever more than an epoch ahead of another."""

    def decays(trial: Any, config: TrainConfig) -> TrainConfig:
        return tune_float(trial, config, "mixing.decay", 0.1, 0.9)

    found = search(decays, 3, n_workers=3)
    assert len(found.order) == 3 * 16
    for n in range(1, len(found.order)):
        epochs = [found.order[:n].count(trial) for trial in found.trainings]
        assert max(epochs) - min(epochs) <= 1


def test_a_worker_that_is_free_begins_the_next_trial_while_others_go_on() -> None:
    found = search("full", 9, n_workers=3)
    ends = [max(i for i, t in enumerate(found.order) if t == trial) for trial in found.trainings]
    begins = [found.order.index(trial) for trial in found.trainings]
    assert begins[6] < max(ends[3:6])
    assert found.order[:3] == ["0000", "0001", "0002"]


def test_a_search_in_which_every_trial_waits_is_an_error() -> None:
    def held(config: TrainConfig) -> WarmupsInMemory:
        """A store in which another process, which will not return, has claimed everything."""
        warmups, trainer = WarmupsInMemory(), SimulatedTrainer(config, WORLD)
        for name in warming(trainer):
            for key in warmup_keys(trainer, name):
                warmups.claim(key)
        return warmups

    with pytest.raises(RuntimeError, match="waits for another's warm-up"):
        search(lambda _, config: config, 2, n_workers=2, warmups=held(short()))


# Stopping


@pytest.mark.slow
@pytest.mark.parametrize(("n_workers", "shares"), [(1, False), (4, True)])
def test_early_stopping_stops_trials_and_all_end_in_a_final_state(
    n_workers: int, shares: bool
) -> None:
    """Law 7, for 300 random trials."""
    warmups = WarmupsInMemory() if shares else None
    found = search(
        "full", 300, n_workers=n_workers, warmups=warmups, rungs=Rungs(SuccessiveHalving())
    )
    counts = found.ledger.results.counts()
    assert counts.total == counts.completed + counts.stopped_early == 300
    assert counts.stopped_early > 30
    assert counts.completed > 10
    assert found.states <= FINAL
    assert not found.searcher.running
    assert not found.searcher.close()
    assert not found.ledger.sampling._study.get_trials(states=[TrialState.RUNNING])
    assert warmups is None or not warmups.claimed


def test_early_stopping_saves_cost() -> None:
    whole, stopped = (
        search("full", 40, rungs=rungs) for rungs in (None, Rungs(SuccessiveHalving()))
    )
    assert whole.ledger.results.counts().stopped_early == 0
    assert stopped.cost() < 0.8 * whole.cost()
    assert set(dict(stopped.points)) <= set(dict(whole.points))


def test_a_trial_is_stopped_at_a_rung_and_says_so() -> None:
    rungs = NotingRungs(SuccessiveHalving())
    found = search("full", 40, base=judged_every(1), rungs=rungs)
    pruned = found.ledger.study.get_trials(states=[TrialState.PRUNED])
    told = {
        trial.user_attrs["trial"]: (
            trial.user_attrs["stopped_at"],
            list(trial.user_attrs["accuracies"].values()),
        )
        for trial in pruned
    }
    assert told == rungs.stops != {}


def crowded(*rungs: str, n: int = 9) -> Rungs:
    """Rungs that hold nearly perfect results already."""
    filled = Rungs(SuccessiveHalving())
    for rung in rungs:
        for i in range(n):
            filled.report(f"other{i}", rung, [[0.99, 0.99]])
    return filled


def test_a_weak_robust_warm_up_ends_a_trial_before_the_natural_expert_is_trained() -> None:
    base = judged_every(2)
    found = search("smoke", 1, base=base, warmups=WarmupsInMemory(), rungs=crowded("robust@1"))
    (training,) = found.trainings.values()
    assert [expert.epoch for expert in training.trainer.experts] == [0, 2]
    judged = (base.evaluation.n_images_during_training or 0) * evaluation_cost(base.evaluation)
    robust = next(e for e in base.experts if e.attack is not None)
    assert found.cost() == 2 * WORLD.n_train * update_cost(robust) + judged
    assert found.ledger.results.counts().stopped_early == 1
    (trial,) = found.ledger.study.get_trials()
    assert trial.user_attrs["stopped_at"] == 2


def test_a_weak_global_learner_ends_a_trial_after_its_warm_ups() -> None:
    base = replace_at(judged_every(1), "sync.start_epoch", 4)
    found = search(
        lambda _, config: config, 1, base=base, warmups=WarmupsInMemory(), rungs=crowded("global@9")
    )
    (training,) = found.trainings.values()
    assert [expert.epoch for expert in training.trainer.experts] == [9, 9]
    assert found.ledger.results.counts().stopped_early == 1


def test_a_stopped_trial_leaves_its_claim_to_others() -> None:
    base, warmups = judged_every(4), WarmupsInMemory()
    rungs = Rungs(SuccessiveHalving(first_rung=4))
    for i in range(9):
        rungs.report(f"other{i}", "robust@4", [[0.99, 0.99]])
    first = search(lambda _, config: config, 1, base=base, warmups=warmups, rungs=rungs)
    assert first.ledger.results.counts().stopped_early == 1
    second = search(lambda _, config: config, 1, base=base, warmups=warmups)
    assert second.ledger.results.counts().completed == 1
    assert second.cost("reused_forward_images") > 0


# Samplers, lineages and hypervolume


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_the_hypervolume_never_falls(sampler: str) -> None:
    found = search(
        "full", 25, sampler=sampler, rungs=Rungs(SuccessiveHalving()), warmups=WarmupsInMemory()
    )
    assert len(found.hypervolumes) == found.ledger.results.counts().completed
    assert len(set(found.hypervolumes)) >= 3
    assert all(before <= after for before, after in pairwise(found.hypervolumes))
    assert found.hypervolumes[-1] == found.ledger.results.front().hypervolume


@pytest.mark.parametrize("n_workers", [1, 3, 8])
def test_lineages_grow_on_their_own_warm_ups_and_no_worker_starves(n_workers: int) -> None:
    """Each epoch of a lineage is trained once, whichever branches leave it."""
    warmups = CountingWarmups()
    found = search("lineages", 40, n_workers=n_workers, warmups=warmups)
    proposer = found.searcher.proposer
    assert isinstance(proposer, LineageProposer)
    assert found.ledger.results.counts().completed == 40
    assert set(warmups.published.values()) == {1}
    assert max(len(lineage.stages) for lineage in proposer.lineages) >= 3
    longest = [(known.stages[-1].epochs, known.cost) for known in proposer.lineages]
    trained, judged = sum(epochs * cost for epochs, cost in longest), 0
    for training in found.trainings.values():
        config = training.trainer.config
        learning = [expert for expert in config.experts if not expert.rests]
        trained += config.cotraining_epochs * sum(map(update_cost, learning))
        judged += training.trainer.n_images_during_training
    judged += sum(point.n_images for point in found.ledger.results.points())
    judging = evaluation_cost(short().evaluation)
    assert found.cost() == WORLD.n_train * trained + judging * judged


def test_good_experts_give_more_hypervolume_than_bad_ones() -> None:
    """At the simulated world's best rate, and a thousandth of it."""
    good = with_expert(short(), "robust", optimizer=SGD(lr=0.3, momentum=0.9))
    bad = with_expert(short(), "robust", optimizer=SGD(lr=0.0003, momentum=0.9))
    values = [
        search(lambda _, config: config, 1, base=base).hypervolumes[0] for base in (bad, good)
    ]
    assert values[0] < 0.5 * values[1]


def test_n_trials_are_proposed_and_no_more() -> None:
    proposed: list[str] = []

    def counting(trial: Any, base: TrainConfig) -> TrainConfig:
        proposed.append("asked")
        return SPACES["smoke"](trial, base)

    found = search(counting, 7, n_workers=3)
    assert found.ledger.results.counts().completed == 7
    n_to_find_the_first_suggestions = 4
    assert len(proposed) == 7 + n_to_find_the_first_suggestions
