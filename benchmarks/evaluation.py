"""Evaluation by PGD-20 and by AutoAttack, against a textbook PGD and the library itself.

python -m benchmarks.evaluation [--n-images 200] [--out docs/results/FILE.json]

First the accuracies are compared, then the medians of interleaved times. The model is the digits'
small net after a short robust training. AutoAttack is the same library in both cases: the suite
adds its checks and cheaper attacks that run first.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn

from benchmarks.machine import environment, seconds
from benchmarks.textbook import textbook_pgd
from generalist_core.config import PGD, EvaluationConfig, NamedAttack
from generalist_core.config.presets import short
from generalist_core.config.suite import SuiteConfig
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Split
from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.suite import run_suite
from generalist_core.randomness import generator
from generalist_core.training.averaging import copy_weights, weights_of
from generalist_core.training.evaluator import Evaluator
from generalist_core.training.trainer import GeneralistTrainer
from search.files import write_json

EPSILON = 0.1
ATTACK = PGD(epsilon=EPSILON, steps=20, relative_step_size=0.1)


def robust_net() -> tuple[nn.Module, Split]:
    """A net with some robustness, in eval mode, and test images that it was not trained on."""
    config = short(epochs=8)
    data = load_dataset(config.data)
    trainer = GeneralistTrainer(config, data)
    while not trainer.is_done:
        trainer.train_epoch()
    model = trainer.experts[1].model
    copy_weights(weights_of(model), trainer.mixture(1.0))
    assert data.test is not None
    return model.eval(), data.test


def textbook(model: nn.Module, split: Split, seed: int) -> Tensor:
    """Verdicts (n,) under PGD-20, as the textbook writes it."""
    rng = generator(split.images.device, seed, "evaluation", "robust")
    verdicts = []
    for x, y in split.batches(256, torch.float32):
        attacked = textbook_pgd(ATTACK, model, x, y, rng)
        with torch.no_grad():
            verdicts.append(model(attacked).argmax(1) == y)
    return torch.cat(verdicts)


def library(model: nn.Module, split: Split) -> Tensor:
    """Verdicts (n,) under AutoAttack with the library's defaults."""
    net = frozen(model, split.images.device)
    with torch.random.fork_rng([]):
        attack = pyautoattack.AutoAttack(net, norm="Linf", eps=EPSILON, seed=0)
        attacked, _ = attack.run_standard_evaluation(split.images, split.labels, batch_size=250)
    with torch.no_grad():
        verdicts: Tensor = net(attacked).argmax(1) == split.labels
    return verdicts


def main() -> None:
    """Check the agreement and print the ratios of times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, test = robust_net()
    split = test.take(torch.arange(options.n_images))
    config = EvaluationConfig(attacks=(NamedAttack(name="robust", attack=ATTACK),))
    how = {"seed": 0, "dtype": torch.float32}
    weights = [tensor.clone() for tensor in weights_of(model)]
    evaluator = Evaluator(model, split, config, fold_batchnorm=True, **how)
    suite = SuiteConfig(norm="linf", epsilon=EPSILON, attacks=("natural", "autoattack"))
    unchecked = replace(suite, n_check_images=0)
    calls: dict[str, Callable[[], Any]] = {
        "PGD-20, textbook": lambda: textbook(model, split, 0).double().mean().item(),
        "PGD-20, ours": lambda: evaluator.judge(weights).accuracies["robust"],
        "AutoAttack, library": lambda: library(model, split).double().mean().item(),
        "AutoAttack, ours": lambda: run_suite(model, split, suite).worst_case_accuracy,
        "AutoAttack, unchecked": lambda: run_suite(model, split, unchecked).worst_case_accuracy,
    }
    accuracies = {name: call() for name, call in calls.items()}
    for kind in ("PGD-20", "AutoAttack"):
        values = [value for name, value in accuracies.items() if name.startswith(kind)]
        assert max(values) - min(values) <= 1 / len(split), f"{kind}: {values} differ"
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repeats):
        for name, call in calls.items():
            times[name].append(seconds(call, torch.device("cpu")))
    medians = {name: statistics.median(column) for name, column in times.items()}
    for name, median in medians.items():
        reference = next(m for n, m in medians.items() if n.split(",")[0] == name.split(",")[0])
        speed = f"{len(split) / median:9.1f} images/s  {reference / median:5.2f} x"
        print(f"{name:<21} accuracy {accuracies[name]:.4f}  {speed}")
    if options.out is not None:
        document = {
            "environment": environment(torch.device("cpu")),
            "n_images": len(split),
            "seconds": medians,
            "accuracies": accuracies,
        }
        write_json(options.out, document)


if __name__ == "__main__":
    main()
