"""Rounds: the same comes out whoever is faster, and however often the search is interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.simulated_loop import run_here
from benchmarks.simulator import SimulatedTrainer, WarmupsInMemory, World
from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.training.trainer import Metrics
from generalist_core.validation import InvalidConfigError
from search.config import Branching, SuccessiveHalving, SweepConfig
from search.running.trial import Training, with_release_ratio
from search.scheduling.callbacks import Callback
from search.scheduling.early_stopping import Rungs
from search.scheduling.proposer import Proposer, enqueue_first
from search.scheduling.replay import replay
from search.scheduling.searcher import Rules, Searcher
from search.study.folder import Sweep
from search.study.ledger import Ledger
from search.study.records import Proposal
from search.study.samplers import N_STARTUP, build_samplers
from spaces import SPACES, Space, Trial

BASE = replace_at(short(epochs=6), "evaluation.every_epochs", 1)
WORLD = World()


class Killed(BaseException):
    """The driver is no more."""


class Killing(Callback):
    """Kills the driver when so many epochs were reported."""

    def __init__(self, n_epochs: int | None) -> None:
        self.n_left = n_epochs

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        if self.n_left is not None:
            self.n_left -= 1
            if self.n_left < 0:
                raise Killed


class Kept(Training):
    """A training whose metrics stay when it is gone, as in a trial's folder."""

    def __init__(
        self, trainer: SimulatedTrainer, warmups: WarmupsInMemory | None, kept: list[Metrics]
    ) -> None:
        super().__init__(trainer, warmups)
        self.kept = kept

    def attempt(self) -> Metrics | None:
        metrics = super().attempt()
        if metrics is not None:
            self.kept.append(metrics)
        return metrics


def picky(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The whole space, less a third that it refuses."""
    config = SPACES["full"](trial, base)
    if trial.suggest_categorical("mood", ["good", "fair", "bad"]) == "bad":
        raise InvalidConfigError("not today")
    return config


def few_warmups(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Each expert has three rates, so that trials of one round want the same warm-ups."""
    for name in ("natural", "robust"):
        rate = trial.suggest_categorical(f"rate.{name}", ["0.3", "0.1", "0.003"])
        base = replace_at(base, f"experts.{name}.optimizer.lr", float(rate))
    base = replace_at(base, "sync.start_epoch", trial.suggest_int("sync.start_epoch", 1, 4))
    ratio = trial.suggest_float("mixing.ratio.all", 0.0, 1.0)
    return replace_at(base, "mixing.ratio.values", [ratio, ratio])


@dataclass
class Search:
    """A search that survives its driver: study, trials' metrics and shared warm-ups stay."""

    n_workers: int
    sampler: str = "random"
    space: Space = picky
    seed: int = 0
    round_size: int | None = 3
    n_trials: int = 11
    branching: Branching | None = None
    warmups: WarmupsInMemory | None = None
    eta: float = 2.0
    storage: BaseStorage = field(default_factory=InMemoryStorage)
    metrics: dict[str, list[Metrics]] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    n_epochs: int = 0

    def run(self, n_epochs: int | None = None) -> Search:
        """Begin, or go on, and come to the end unless killed after `n_epochs`."""
        ledger, searcher = self._searcher(n_epochs)
        for proposal in ledger.results.proposals():
            for metrics in list(self.metrics.get(proposal.trial, [])):
                searcher.recall(proposal, metrics)
        try:
            run_here(searcher, self._begin)
        except Killed:
            for training in self.trainings.values():
                training.close()
        else:
            assert not searcher.close()
        return self

    def _searcher(self, n_epochs: int | None) -> tuple[Ledger, Searcher]:
        ledger = self.ledger()
        unfinished = ledger.resume()
        enqueue_first(ledger, self.space, BASE)
        searcher = Searcher(
            Proposer(ledger, self.space, BASE, self.branching),
            n_trials=self.n_trials,
            unfinished=unfinished,
            n_workers=self.n_workers,
            rules=Rules(rungs=Rungs(SuccessiveHalving(eta=self.eta)), round_size=self.round_size),
            callback=Killing(n_epochs),
        )
        return ledger, searcher

    def _begin(self, proposal: Proposal) -> Training:
        """Whoever was interrupted begins again: that is the most that a crash can undo."""
        config = with_release_ratio(proposal.config, proposal.mixing_ratio)
        kept = self.metrics[proposal.trial] = []
        training = Kept(SimulatedTrainer(config, WORLD), self.warmups, kept)
        self.trainings[proposal.trial] = training
        return training

    def ledger(self) -> Ledger:
        """The ledger, new or as the last driver left it."""
        is_new = not self.storage.get_all_studies()
        sampler = build_samplers(self.sampler, seed=self.seed, n_startup=N_STARTUP)
        objectives = BASE.evaluation.objectives
        return Ledger(self.storage, objectives, sampler_of=sampler, is_new=is_new)


def outcome(search: Search) -> dict[str, Any]:
    """What came out, and in which order it was told."""
    ledger = search.ledger()
    records = ledger.results.records()
    return {
        "suggestions": [(record.trial, record.params, record.asked_after) for record in records],
        "ends": [(record.state, record.stopped_at, record.failure) for record in records],
        "told": [growth.trial for growth in ledger.results.history()],
        "points": [(point.name, point.accuracies) for point in ledger.results.points()],
        "hypervolume": ledger.results.front().hypervolume,
    }


def ways(search: Search) -> set[str]:
    return {record.state for record in search.ledger().results.records()}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("branching", [None, Branching()], ids=["", "branches"])
def test_in_rounds_the_number_of_workers_changes_nothing(
    sampler: str, branching: Branching | None
) -> None:
    one = Search(1, sampler, branching=branching, seed=1).run()
    assert {"completed", "stopped early"} <= ways(one)
    for n_workers in (2, 3):
        assert outcome(Search(n_workers, sampler, branching=branching, seed=1).run()) == outcome(
            one
        )


def test_without_rounds_it_does() -> None:
    found = [outcome(Search(n, "tpe", round_size=None).run()) for n in (1, 3)]
    assert found[0] != found[1]


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "every"), [("random", 5), ("tpe", 16)])
@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_in_rounds_an_interruption_changes_nothing(
    n_workers: int, sampler: str, every: int
) -> None:
    """After any number of epochs, of which each case takes some."""
    whole = Search(n_workers, sampler).run()
    n_epochs = sum(map(len, whole.metrics.values()))
    expected = outcome(whole)
    for cut in range(n_workers, n_epochs, every):
        assert outcome(Search(n_workers, sampler).run(cut).run()) == expected


@pytest.mark.slow
def test_in_rounds_many_interruptions_and_other_workers_change_nothing() -> None:
    search = Search(1, "tpe", branching=Branching())
    expected = outcome(Search(2, "tpe", branching=Branching()).run())
    for n in range(12):
        search.n_workers = 1 + n % 3
        search.run(13)
    assert outcome(search.run()) == expected


@pytest.mark.parametrize("round_size", [1, 2, 5, 50])
def test_a_round_of_any_size_comes_to_its_end(round_size: int) -> None:
    found = [Search(n_workers, round_size=round_size, n_trials=9).run() for n_workers in (1, 2, 9)]
    assert found[0].ledger().results.counts().total == 9
    assert outcome(found[0]) == outcome(found[1]) == outcome(found[2])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("branching", [None, Branching()], ids=["", "branches"])
def test_in_rounds_who_trains_a_shared_warm_up_changes_nothing(
    seed: int, branching: Branching | None
) -> None:
    def search(n_workers: int, warmups: WarmupsInMemory | None) -> Search:
        return Search(n_workers, space=few_warmups, seed=seed, warmups=warmups, branching=branching)

    alone = search(2, None)
    shared, interrupted = (search(n_workers, WarmupsInMemory()) for n_workers in (3, 2))
    for _ in range(8):
        interrupted.run(9)
    found = [outcome(one.run()) for one in (alone, shared, interrupted)]
    assert found[0] == found[1] == found[2]
    assert "stopped early" in ways(alone)
    assert shared.ledger().results.cost()["reused_forward_images"] > 0


# Replay


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("branching", [None, Branching()], ids=["", "branches"])
def test_the_record_gives_every_suggestion_again(
    n_workers: int, branching: Branching | None
) -> None:
    search = Search(n_workers, "tpe", round_size=None, branching=branching).run(20).run()
    assert replay(as_sweep(search), picky) == []


def test_another_space_or_seed_is_found_out() -> None:
    sweep = as_sweep(Search(2, "tpe", n_trials=6).run())
    assert replay(sweep, SPACES["smoke"]) == [f"{number:04d}" for number in range(6)]
    sweep.ledger.sampler_of = build_samplers("tpe", seed=1, n_startup=N_STARTUP)
    assert replay(sweep, picky) == [f"{number:04d}" for number in range(2, 6)]


def as_sweep(search: Search) -> Sweep:
    config = SweepConfig(base=BASE, trials=search.n_trials, branching=search.branching)
    return Sweep(folder=Path("nowhere"), config=config, ledger=search.ledger())
