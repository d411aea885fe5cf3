"""Ledgers in memory, and results of trials to tell them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from optuna.storages import InMemoryStorage

from generalist_core.config import as_weights
from generalist_core.config.mixing import GLOBAL
from generalist_core.config.presets import short
from generalist_core.training.evaluator import OperatingPoint
from search.running.trial import with_release_ratio
from search.scheduling.proposer import Proposer
from search.study.failures import Failure
from search.study.ledger import Ledger
from search.study.records import Proposal
from search.study.samplers import build_samplers
from spaces import SPACES
from tests.helpers.points import OBJECTIVES

PLANTED = Failure(kind="error", reason="planted")
COST = {
    "forward_images": 10,
    "reused_forward_images": 4,
    "lost_forward_images": 2,
    "seconds": 1.5,
    "gpu_seconds": 0.75,
}
LOW = {"natural": 0.5, "robust": 0.25}


def new_ledger(
    sampler: str = "random",
    storage: object = None,
    *,
    is_new: bool = True,
    objectives: Sequence[str] = OBJECTIVES,
) -> Ledger:
    """A ledger, by default of two objectives and in memory."""
    built = build_samplers(sampler, seed=0, n_startup=8)
    return Ledger(storage or InMemoryStorage(), objectives, sampler_of=built, is_new=is_new)  # type: ignore[arg-type]


def release(proposal: Proposal) -> list[OperatingPoint]:
    """Operating points on a known curve."""
    config = with_release_ratio(proposal.config, proposal.mixing_ratio)
    return [
        OperatingPoint(
            mixing_ratio=ratio,
            accuracies={"natural": 1 - 0.1 * as_weights(ratio, 2)[1], "robust": 0.5},
            n_images=100,
            epoch=16,
        )
        for ratio in config.evaluation.release_ratios
    ]


def finish(proposer: Proposer, proposal: Proposal, quality: float) -> None:
    """Release one point whose hypervolume is `quality`."""
    accuracies = {"natural": 0.9, "robust": quality / 0.9}
    ratio = proposal.mixing_ratio
    point = OperatingPoint(mixing_ratio=ratio, accuracies=accuracies, n_images=100, epoch=3)
    proposer.ledger.tell_released(proposal.trial, [point], COST)
    proposer.completed(proposal.trial)


def scattered(proposal: Proposal, source: np.random.Generator) -> list[OperatingPoint]:
    """The points of a trial, at random on a coarse grid below a diagonal: there are many ties."""
    points = []
    for point in release(proposal):
        natural = int(source.integers(9))
        values = (natural / 8, int(source.integers(9 - natural)) / 8)
        accuracies = dict(zip(OBJECTIVES, values, strict=True))
        points.append(dataclasses.replace(point, accuracies=accuracies))
    return points


def told_out_of_order(ledger: Ledger, seed: int) -> Iterator[Ledger]:
    """The ledger after each of twelve trials, of which three run at a time."""
    source, running = np.random.default_rng(seed), []
    for _ in range(12):
        while len(running) < 3:
            running.append(ledger.ask(SPACES["smoke"], short()))
        proposal = running.pop(int(source.integers(len(running))))
        ledger.tell_released(proposal.trial, scattered(proposal, source), COST)
        yield ledger


def story(ledger: Ledger) -> Iterator[Ledger]:
    """The ledger after each call of a short search, in which trials end in all ways."""
    source = np.random.default_rng(0)
    trials: list[Proposal] = []

    def ask() -> None:
        trials.append(ledger.ask(SPACES["smoke"], short()))

    def release(number: int) -> None:
        trial = trials[number]
        points = scattered(trial, source)
        learner = dataclasses.replace(points[0], mixing_ratio=GLOBAL)
        ledger.tell_released(trial.trial, [*points, learner], COST)

    calls: list[Callable[[], None]] = [
        ask,
        ask,
        lambda: release(0),
        ask,
        lambda: ledger.tell_failed(trials[1].trial, PLANTED, COST),
        ask,
        lambda: ledger.tell_stopped(trials[2].trial, 3, COST, LOW),
        lambda: ledger.pause(trials[3].trial),
        ask,
        lambda: release(4),
    ]
    yield ledger
    for call in calls:
        call()
        yield ledger


def known(ledger: Ledger) -> dict[str, Any]:
    """All that a ledger says; of running trials, what they continue as."""
    trials = ledger.study.get_trials(deepcopy=False)
    asked = [trial for trial in trials if "sibling" not in trial.user_attrs]
    return {
        "points": ledger.results.points(),
        "front": ledger.results.front(),
        "cost": ledger.results.cost(),
        "failures": ledger.results.failures(),
        "history": [(growth.trial, growth.hypervolume) for growth in ledger.results.history()],
        "unfinished": [t.user_attrs["trial"] for t in asked if not t.state.is_finished()],
        "asked": [(t.user_attrs["trial"], t.params) for t in asked],
        "proposals": ledger.results.proposals(),
        "records": ledger.results.records(),
    }
