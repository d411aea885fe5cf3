"""A simulated search that survives its driver."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.simulated_loop import run_here
from benchmarks.simulator import SimulatedTrainer, WarmupsInMemory, World
from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.training.trainer import Metrics
from generalist_core.validation import InvalidConfigError
from search.config import Population, SuccessiveHalving, SweepConfig
from search.running.trial import Training, with_release_ratio
from search.scheduling.callbacks import Callback
from search.scheduling.early_stopping import Rungs
from search.scheduling.proposers import build_proposer
from search.scheduling.searcher import Rules, Searcher
from search.study.ledger import Ledger
from search.study.records import Proposal
from search.study.samplers import N_STARTUP, build_samplers
from spaces import SPACES, Space, Trial
from spaces.lineages import LENGTH, LONGEST, START, as_lineage, with_steps

BASE = replace_at(short(epochs=6), "evaluation.every_epochs", 1)


WORLD = World()


class Killed(BaseException):
    """The driver of the search was killed."""


class Killing(Callback):
    """Kills the driver when `n_epochs` epochs were reported."""

    def __init__(self, n_epochs: int | None) -> None:
        self.n_left = n_epochs

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        if self.n_left is not None:
            self.n_left -= 1
            if self.n_left < 0:
                raise Killed


class Kept(Training):
    """A training whose metrics survive it, as those in a trial's folder do."""

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
    """The space `full`, which refuses a third of its suggestions."""
    return moody(trial, SPACES["full"](trial, base))


def picky_lineages(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The space `lineages`, which refuses a third of the lineages that it suggests."""
    return moody(trial, SPACES["lineages"](trial, base))


def moody(trial: Trial, config: TrainConfig) -> TrainConfig:
    """Refuse one mood of three."""
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


def small(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Nine configurations: one of two choices asks for further parameters."""
    if trial.suggest_categorical("way", ["short", "long"]) == "short":
        return replace_at(base, "sync.start_epoch", 2)
    start = trial.suggest_int("sync.start_epoch", 3, 5, step=2)
    decay = trial.suggest_float("mixing.decay", 0.8, 0.95, step=0.05)
    return replace_at(replace_at(base, "sync.start_epoch", start), "mixing.decay", decay)


def small_lineages(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Two lineages, with three branches at each stage."""
    steps = trial.suggest_int("experts.robust.attack.steps", 2, 3)
    config = with_steps(base, "robust", steps)
    start = trial.suggest_int(START, 1, LONGEST, log=True)
    config = as_lineage(config, start, start + trial.suggest_int(LENGTH, 1, 3))
    rests = trial.suggest_categorical("experts.robust.rests", [True])
    return replace_at(config, "experts.robust.rests", rests)


@dataclass
class Search:
    """A search that survives its driver: study, metrics and shared warm-ups are kept."""

    n_workers: int
    sampler: str = "random"
    space: Space = picky
    seed: int = 0
    round_size: int | None = 3
    n_trials: int = 11
    budget: float = math.inf
    population: Population | None = None
    warmups: WarmupsInMemory | None = None
    eta: float = 2.0
    storage: BaseStorage = field(default_factory=InMemoryStorage)
    metrics: dict[str, list[Metrics]] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    n_epochs: int = 0

    def run(self, n_epochs: int | None = None) -> Search:
        """Begin or continue the search, to its end unless it is killed after `n_epochs`."""
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
        request = SweepConfig(base=BASE, sampler=self.sampler, population=self.population)
        proposer = build_proposer(ledger, self.space, request, WORLD.images)
        proposer.enqueue_first()
        rungs = Rungs(SuccessiveHalving(eta=self.eta))
        searcher = Searcher(
            proposer,
            n_trials=self.n_trials,
            unfinished=unfinished,
            n_workers=self.n_workers,
            rules=Rules(rungs=rungs, round_size=self.round_size, budget=self.budget),
            callback=Killing(n_epochs),
        )
        return ledger, searcher

    def _begin(self, proposal: Proposal) -> Training:
        """An interrupted trial begins again, which is the most that a crash can undo."""
        config = with_release_ratio(proposal.config, proposal.mixing_ratio)
        kept = self.metrics[proposal.trial] = []
        training = Kept(SimulatedTrainer(config, WORLD), self.warmups, kept)
        self.trainings[proposal.trial] = training
        return training

    def ledger(self) -> Ledger:
        """The ledger, new or as the last driver left it."""
        is_new = not self.storage.get_all_studies()
        sampler = build_samplers(self.sampler, seed=self.seed, n_startup=N_STARTUP)
        objectives = BASE.evaluation.objective_names
        return Ledger(self.storage, objectives, sampler_of=sampler, is_new=is_new)
