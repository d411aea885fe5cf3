"""A simulated search with a callback: what a sweep shows, without Ray."""

from __future__ import annotations

from optuna.storages import InMemoryStorage

from benchmarks.simulated_loop import run_here
from benchmarks.simulator import SimulatedTrainer, WarmupsInMemory, World
from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from search.config import SuccessiveHalving
from search.running.trial import Training, with_release_ratio
from search.scheduling.callbacks import Callback
from search.scheduling.early_stopping import Rungs
from search.scheduling.proposer import SamplingProposer
from search.scheduling.searcher import Rules, Searcher
from search.study.ledger import Ledger
from search.study.records import Proposal
from search.study.samplers import N_STARTUP, build_samplers
from spaces import SPACES, Space, Trial, paper_suggestion

BASE = replace_at(short(), "evaluation.every_epochs", 1)


def refusing(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The space `smoke`, which refuses about half of its suggestions."""
    start = trial.suggest_int("refused", 0, 1)
    return replace_at(SPACES["smoke"](trial, base), "sync.start_epoch", 99 if start else 5)


def new_ledger(space: Space) -> Ledger:
    built = build_samplers("random", seed=0, n_startup=N_STARTUP)
    ledger = Ledger(InMemoryStorage(), BASE.evaluation.objective_names, sampler_of=built)
    ledger.enqueue(*paper_suggestion(space, BASE), 2)
    return ledger


def watch(callback: Callback, ledger: Ledger, space: Space, *, n_trials: int = 12) -> None:
    """Run a search with early stopping, two workers and this callback."""
    searcher = Searcher(
        SamplingProposer(ledger, space, BASE),
        n_trials=n_trials,
        n_workers=2,
        callback=callback,
        rules=Rules(rungs=Rungs(SuccessiveHalving())),
    )
    warmups = WarmupsInMemory()

    def begin(proposal: Proposal) -> Training:
        config = with_release_ratio(proposal.config, proposal.mixing_ratio)
        return Training(SimulatedTrainer(config, World()), warmups)

    run_here(searcher, begin)
    searcher.close()
