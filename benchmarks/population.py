"""MO-PBT (Dushatskiy et al. 2023, arXiv 2306.01436): a population that trains while it is searched.

As published: members train on TRADES; at every step they are ranked by non-dominated fronts, and
within a front so that those come first that are far from all before them; the worst quarter takes
over weights and hyperparameters of the best one, and explores from there. Population and steps are
smaller than in the paper's runs (32 and 50), and in place of augmentations, which small images do
not need, the learning rate is searched beside the loss.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray

from benchmarks.tasks import Found, Task, trained_alone
from generalist_core.training.abstract_trainer import AbstractTrainer
from generalist_core.training.warmups import adopt_warmup, warmup_state
from spaces.lineages import robust_of

N_MEMBERS, N_STEPS, N_REPLACED = 8, 12, 2

RANGES = {"loss.beta": (0.1, 10.0), "optimizer.lr": (0.01, 0.5)}
"""The hyperparameters of the robust expert, on a logarithmic scale."""

RESAMPLED = 0.25
"""The probability that exploring draws anew, instead of going up or down by a quarter."""


@dataclass
class Member:
    """A training, its hyperparameters, and its last validation accuracies."""

    params: dict[str, float]
    trainer: AbstractTrainer
    values: Sequence[float] = ()


def mo_pbt(task: Task) -> Iterator[Found]:
    """Train a population for as many epochs as the base."""
    rng, cost, epochs = np.random.default_rng(task.config.seed), 0.0, task.config.epochs
    drawn = [{name: _drawn(rng, name) for name in RANGES} for _ in range(N_MEMBERS)]
    members = [Member(params, task.trainer(task.trades(params))) for params in drawn]
    for step in range(1, N_STEPS + 1):
        for member in members:
            cost -= member.trainer.forward_images
            trained_alone(member.trainer, min(epochs - 1, epochs * step // N_STEPS))
            found = task.released(member.trainer, 1.0)
            cost += member.trainer.forward_images
            member.values = list(found[0].validated.values())
            yield cost, found
        order = ranked(np.array([member.values for member in members]), rng)
        for worst in order[-N_REPLACED:]:
            best = members[rng.choice(order[:N_REPLACED])]
            members[worst] = _explored(task, best, rng)


def ranked(values: NDArray[np.float64], rng: np.random.Generator) -> list[int]:
    """The rows of `values`, (n, objectives), from the best to the worst."""
    fronts = moocore.pareto_rank(values, maximise=True)
    order: list[int] = []
    for front in range(fronts.max() + 1):
        left = np.flatnonzero(fronts == front).tolist()
        while left:
            objective = rng.integers(values.shape[1])
            scores = [_distance(values, row, order) or values[row, objective] for row in left]
            order.append(left.pop(int(np.argmax(scores))))
    return order


def _distance(values: NDArray[np.float64], row: int, others: Sequence[int]) -> float:
    gaps = np.linalg.norm(values[list(others)] - values[row], axis=1)
    return float(min(gaps, default=0.0))


def _explored(task: Task, member: Member, rng: np.random.Generator) -> Member:
    params = {}
    for name, (low, high) in RANGES.items():
        moved = member.params[name] * rng.choice([0.75, 1.25])
        params[name] = (
            _drawn(rng, name) if rng.random() < RESAMPLED else float(np.clip(moved, low, high))
        )
    trainer = task.trainer(task.trades(params))
    name = robust_of(task.config).name
    adopt_warmup(trainer, name, copy.deepcopy(warmup_state(member.trainer, name)))
    return Member(params, trainer)


def _drawn(rng: np.random.Generator, name: str) -> float:
    low, high = np.log(RANGES[name])
    return float(np.exp(rng.uniform(low, high)))
