"""Experts of several norms, mixed, against one expert that is trained on several attacks.

python -m benchmarks.several_norms --seeds 3

One run trains a natural expert and one per norm, and releases mixtures and the global learner, of
which the best in `union` on validation images is taken. The others train one expert of the same
settings on the worst attack for each image (MAX), on the worst in each step (MSD), on the average
over the attacks (AVG), or on one drawn for each batch, equally or by running errors (E-AT), for as
many epochs as cost the same. All are judged on test images by MultiTargeted with 20 steps in each
norm. The table has means and standard deviations over seeds, in %, and the cost of training in
forward images.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.tasks import Candidate, Task, alone, trained_alone
from generalist_core.config import (
    PGD,
    MultiTargeted,
    NamedAttack,
    Norm,
    SeveralAttacks,
    TrainConfig,
)
from generalist_core.config.attacks import Combine
from generalist_core.config.evaluation import NATURAL, UNION
from generalist_core.config.norms import usual_radius, with_norms
from generalist_core.config.presets import short
from generalist_core.data.splits import n_batches
from search.cli.values import norms
from search.running.trial import cached_dataset
from search.scheduling.branching import epochs_for


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a method trained: the model that it takes, its epochs and the cost of training."""

    best: Candidate
    epochs: int
    cost: float


def task_of(base: TrainConfig, radii: Mapping[Norm, float | None]) -> Task:
    """Natural accuracy, accuracy in each norm, and union, with an expert for each norm.

    A norm without a radius has the usual one.
    """
    known = {norm: radius or usual_radius(base.data, norm) for norm, radius in radii.items()}
    config = with_norms(base, known)
    attacks = tuple(
        NamedAttack(name=norm, attack=MultiTargeted(norm=norm, epsilon=radius, steps=20))
        for norm, radius in known.items()
    )
    evaluation = dataclasses.replace(
        config.evaluation,
        attacks=attacks,
        objectives=(NATURAL, *radii, UNION),
        n_refinements=8,
        release="last",
    )
    return Task(
        config=dataclasses.replace(config, evaluation=evaluation), data=cached_dataset(config.data)
    )


def mixed(task: Task) -> Trained:
    """The experts, trained together and mixed."""
    trainer = task.trainer(task.config)
    while not trainer.is_done:
        trainer.train_epoch()
    cost = trainer.forward_images
    released = [task.candidate(trainer, point) for point in trainer.release()]
    best = max(released, key=lambda candidate: candidate.validated[UNION])
    return Trained(best=best, epochs=trainer.epoch, cost=cost)


def joint(task: Task, combine: Combine, budget: float) -> Trained:
    """One expert on the attacks of all, for as many epochs as cost about `budget`."""
    natural, robust, *_ = task.config.experts
    attacks = tuple(e.attack for e in task.config.experts if isinstance(e.attack, PGD))
    several = SeveralAttacks(parts=attacks, combine=combine)
    robust = dataclasses.replace(robust, name="robust", attack=several)
    batch_size = task.config.batch_size
    n_images = n_batches(task.images.train, batch_size) * batch_size
    epochs = epochs_for(budget / n_images, robust)
    config = dataclasses.replace(
        task.config,
        experts=(natural, robust),
        mixing=short().mixing,
        evaluation=dataclasses.replace(task.config.evaluation, release_ratios=(1.0,)),
        epochs=epochs + 1,
    )
    trainer = trained_alone(task.trainer(alone(config)), epochs)
    cost = trainer.forward_images
    (best,) = task.released(trainer, 1.0)
    return Trained(best=best, epochs=epochs, cost=cost)


JOINT: dict[str, Combine] = {
    "worst attack (MAX)": "worst",
    "worst step (MSD)": "steepest",
    "average over attacks (AVG)": "average",
    "attack drawn for each batch": "random",
    "attack drawn by its errors (E-AT)": "adaptive",
}


def compared(task: Task) -> dict[str, Trained]:
    """Every method, by name."""
    experts = mixed(task)
    others = {name: joint(task, combine, experts.cost) for name, combine in JOINT.items()}
    return {"experts, mixed": experts, **others}


def row(name: str, runs: Sequence[Trained]) -> str:
    """A row of the table."""
    tested = [run.best.tested for run in runs]
    columns = [np.array([each[objective] for each in tested]) * 100 for objective in tested[0]]
    cells = [f"{values.mean():.1f} ± {values.std():.1f}" for values in columns]
    cost = np.mean([run.cost for run in runs])
    return f"| {name} | {runs[0].epochs} | {cost:.2e} | {' | '.join(cells)} |"


def main() -> None:
    """Train by every method with every seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="as the tasks of search_efficiency")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--norms", type=norms, default="linf,l2", help="as --norms of sweep")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Task.of(options.data, options.data_root, 0).config.data
    base = short(data=data, epochs=options.epochs)
    runs: dict[str, list[Trained]] = {}
    for seed in range(options.seeds):
        task = task_of(dataclasses.replace(base, seed=seed), options.norms)
        for name, trained in compared(task).items():
            runs.setdefault(name, []).append(trained)
    header = ["method", "epochs", "cost", NATURAL, *options.norms, UNION]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    sys.stdout.write("\n".join([*lines, *(row(*item) for item in runs.items())]) + "\n")


if __name__ == "__main__":
    main()
