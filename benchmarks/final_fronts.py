"""The final fronts of `benchmarks.search_efficiency` under stronger attacks, with intervals.

python -m benchmarks.final_fronts results.json --task digits --space full --attacks pgd-50x3

Each front was chosen on validation images. Its models are judged on test images by an attack suite
(`autoattack` is one), and measured by the hypervolume above (0, 0) and above the natural accuracy
of robust-only training. The intervals are of the mean over seeds: the middle 95 % of bootstrap
samples, which draw seeds, and for each of them test images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.search_efficiency import front_file
from benchmarks.tasks import Task
from generalist_core.config import PGD
from generalist_core.config.suite import SuiteConfig
from generalist_core.evaluation.suite import run_suite
from generalist_core.training.averaging import overwrite
from generalist_core.training.trainer import GeneralistTrainer
from search.files import read_json
from search.front.front import hypervolume

N_SAMPLES = 1000

Verdicts = NDArray[np.bool_]
"""Whether each model of a front classifies each image, (models, 2, images): natural, attacked."""


def verdicts(task: Task, front: Path, attacks: Sequence[str], n_images: int) -> Verdicts:
    """The verdicts on the models of a stored front."""
    trainer = task.trainer(task.config)
    assert isinstance(trainer, GeneralistTrainer)
    attack = task.config.evaluation.attacks[0].attack
    assert isinstance(attack, PGD)
    suite = SuiteConfig(
        norm=attack.norm, epsilon=attack.epsilon, attacks=tuple(attacks), n_images=n_images
    )
    rows = []
    for _, weights in torch.load(front, weights_only=True):
        overwrite(trainer.evaluator.model, weights)
        result = run_suite(trainer.evaluator.model, task.test, suite)
        rows.append([result.verdicts["natural"].numpy(), result.worst_case.numpy()])
    return np.array(rows)


def measures(judged: Verdicts, reference: float) -> list[float]:
    """The hypervolume of a front, and that above the reference natural accuracy."""
    accuracies = judged.mean(2)
    return [hypervolume(accuracies), hypervolume(accuracies, (reference, 0.0))]


def interval(judged: Sequence[Verdicts], references: Sequence[float]) -> NDArray[np.float64]:
    """The low ends, means and high ends of both measures, (3, measures)."""
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(N_SAMPLES):
        seeds = rng.integers(len(judged), size=len(judged))
        images = rng.integers(judged[0].shape[2], size=(len(judged), judged[0].shape[2]))
        drawn = [judged[seed][:, :, images[n]] for n, seed in enumerate(seeds)]
        pairs = zip(drawn, (references[seed] for seed in seeds), strict=True)
        samples.append(np.mean([measures(*pair) for pair in pairs], 0))
    mean = np.mean([measures(*pair) for pair in zip(judged, references, strict=True)], 0)
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    return np.array([low, mean, high])


def main() -> None:
    """Judge all stored fronts of a task and space, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--space", default="full")
    parser.add_argument("--attacks", nargs="+", default=["pgd-50x3"])
    parser.add_argument("--n-images", type=int, default=1000)
    parser.add_argument("--data-root", default="data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, dict[int, Path]] = {}
    for key in read_json(options.results):
        task, space, method, seed = key.split("/")
        path = front_file(options.results, key)
        if (task, space) == (options.task, options.space) and path.is_file():
            kept.setdefault(method, {})[int(seed)] = path
    seeds = sorted({seed for paths in kept.values() for seed in paths})
    tasks = {seed: Task.of(options.task, options.data_root, seed) for seed in seeds}
    references = {seed: task.robust_only() for seed, task in tasks.items()}
    sys.stdout.write("| method | seeds | hypervolume | area |\n|---|---|---|---|\n")
    for method, paths in kept.items():
        judged = [
            verdicts(tasks[seed], path, options.attacks, options.n_images)
            for seed, path in paths.items()
        ]
        low, mean, high = interval(judged, [references[seed] for seed in paths])
        cells = [f"{m:.3f} [{a:.3f}, {b:.3f}]" for a, m, b in zip(low, mean, high, strict=True)]
        sys.stdout.write(f"| {method} | {len(paths)} | {' | '.join(cells)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
