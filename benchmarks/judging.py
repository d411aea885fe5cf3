"""What judges a search against AutoAttack: which accuracies, and at which cost.

python -m benchmarks.judging [--n-images 200]

A net of the digits is trained by PGD in each norm, and judged on validation images in every one: by
PGD and by MultiTargeted with 10 and 20 steps, and by AutoAttack. The table has accuracies in %, and
in parentheses the cost in forward images per image.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.tasks import alone, trained_alone
from generalist_core.config import (
    NORMS,
    PGD,
    Attack,
    EvaluationConfig,
    MultiTargeted,
    NamedAttack,
    Norm,
)
from generalist_core.config.norms import usual_radius, with_norms
from generalist_core.config.presets import short
from generalist_core.config.suite import SuiteConfig, standard_pgd
from generalist_core.data.datasets import load_dataset
from generalist_core.evaluation.suite import run_suite
from generalist_core.training.evaluator import Evaluator
from generalist_core.training.trainer import GeneralistTrainer


def judges(norm: Norm, epsilon: float) -> dict[str, Attack]:
    """The attacks that are cheap enough for a search, by the name of their column."""
    return {
        "PGD-10": PGD(norm=norm, epsilon=epsilon),
        "PGD-20": standard_pgd(norm, epsilon, 20),
        "MultiTargeted-10": MultiTargeted(norm=norm, epsilon=epsilon),
        "MultiTargeted-20": MultiTargeted(norm=norm, epsilon=epsilon, steps=20),
    }


def robust_in(norm: Norm, epochs: int) -> GeneralistTrainer:
    """A trainer whose robust expert has trained alone, in the usual radius of a norm."""
    base = short(epochs=epochs + 1)
    config = alone(with_norms(base, {norm: usual_radius(base.data, norm)}))
    return trained_alone(GeneralistTrainer(config, load_dataset(config.data)), epochs)


def judged(trainer: GeneralistTrainer, norm: Norm, n_images: int) -> list[str]:
    """The cells of a row: what each attack leaves of the robust expert in a norm, and its cost."""
    epsilon, weights = usual_radius(trainer.config.data, norm), trainer.mixture(1.0)
    split, cells = trainer.evaluator.split.take(torch.arange(n_images)), []
    for attack in judges(norm, epsilon).values():
        evaluator = Evaluator(
            trainer.evaluator.model,
            split,
            EvaluationConfig(attacks=(NamedAttack(name="robust", attack=attack),)),
            seed=0,
            dtype=trainer.dtype,
        )
        found = evaluator.judge(weights)
        cost = found.forward_images / n_images
        cells.append(f"{100 * found.accuracies['robust']:.1f} ({cost:.0f})")
    suite = SuiteConfig(norm=norm, epsilon=epsilon, attacks=("autoattack",))
    accuracy = run_suite(trainer.evaluator.model, split, suite).worst_case_accuracy
    return [*cells, f"{100 * accuracy:.1f}"]


def main() -> None:
    """Train a net in each norm, judge it in every norm, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    header = ["trained in", "judged in", *judges("linf", 0.0), "AutoAttack"]
    print(f"| {' | '.join(header)} |", "|---" * len(header) + "|", sep="\n", flush=True)
    for trained_in in NORMS:
        trainer = robust_in(trained_in, options.epochs)
        for norm in NORMS:
            cells = judged(trainer, norm, options.n_images)
            print(f"| {trained_in} | {norm} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
