"""Fronts without a search: what one finds with the base's settings, more compute and known tricks.

Each baseline is a generator of (cost so far in forward images, candidates found since).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.population import mo_pbt
from benchmarks.tasks import Candidate, Found, Task, trained_alone
from generalist_core.config import PGD, EvaluationConfig, NamedAttack
from generalist_core.config.codec import replace_at
from generalist_core.data.splits import Split
from generalist_core.training.averaging import overwrite
from generalist_core.training.cost import evaluation_cost
from generalist_core.training.evaluator import evaluate
from generalist_core.training.trainer import GeneralistTrainer

LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Lengths of adversarial training, over the epochs of the base."""

BETAS = (0.5, 1.0, 2.0, 4.0, 8.0)

TENTHS = tuple(n / 10 for n in range(11))


def adversarial_training(task: Task, steps: int | None = None) -> Iterator[Found]:
    """Adversarial training at a constant rate, ever longer; the average of weights is judged."""
    longest = round(LENGTHS[-1] * task.config.epochs)
    trainer = task.trainer(task.lineage(longest, steps=steps))
    for length in LENGTHS:
        trained_alone(trainer, round(length * task.config.epochs))
        yield trainer.forward_images, task.released(trainer, 1.0)


def two_steps(task: Task) -> Iterator[Found]:
    """The same with two attack steps, each as long as the radius."""
    return adversarial_training(task, 2)


def trades(task: Task) -> Iterator[Found]:
    """TRADES (Zhang et al. 2019) with five betas, each trained by the base's schedule."""
    cost = 0.0
    for beta in BETAS:
        trainer = task.trainer(task.trades({"loss.beta": beta}))
        trained_alone(trainer, task.config.epochs - 1)
        found = task.released(trainer, 1.0)
        cost += trainer.forward_images
        yield cost, found


def interpolation(task: Task) -> Iterator[Found]:
    """Natural fine-tuning of the robust model, interpolated (Zhu et al. 2023, Croce et al. 2023).

    The robust model is trained with two steps for as many epochs as the base, then fine-tuned for a
    sixth as many at a tenth of the rate.
    """
    epochs = task.config.epochs
    config = task.lineage(epochs, max(1, epochs // 6), steps=2)
    natural, robust = (f"experts.{expert.name}" for expert in config.experts)
    config = replace_at(config, f"{robust}.rests", True)
    rate = config.experts[0].optimizer.lr
    config = replace_at(config, f"{natural}.optimizer.lr", rate / 10)
    trainer = trained_alone(task.trainer(config), epochs)
    while not trainer.is_done:
        trainer.train_epoch()
    for ratio in reversed(TENTHS):
        found = task.released(trainer, ratio)
        yield trainer.forward_images, found


class ProbabilityMixture(nn.Module):
    """The logarithm of the mean of two models' probabilities, by the weight of the second one."""

    def __init__(self, natural: nn.Module, robust: nn.Module, weight: float) -> None:
        super().__init__()
        self.models = nn.ModuleList([natural, robust])
        self.register_buffer("shares", torch.tensor([1 - weight, weight]))

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities, (n, classes)."""
        each = torch.stack([model(x).log_softmax(1) for model in self.models])
        shares = self.get_buffer("shares").log()[:, None, None]
        return torch.logsumexp(each + shares, 0)


def probability_mixture(task: Task) -> Iterator[Found]:
    """Two models, natural and robust, whose probabilities are mixed (as in Bai et al. 2024).

    The mixture itself is attacked, on its margin. It takes twice the inference of all others.
    """
    config = task.lineage(task.config.epochs, steps=2)
    sync = dataclasses.replace(config.sync, skip_discarded_warmup=False)
    trainer = task.trainer(dataclasses.replace(config, sync=sync))
    assert isinstance(trainer, GeneralistTrainer)
    assert task.data is not None
    for _ in range(task.config.epochs):
        trainer.train_epoch()
    both = [trainer.mixture(ratio) for ratio in (0.0, 1.0)]
    models = [copy.deepcopy(trainer.evaluator.model) for _ in both]
    for model, weights in zip(models, both, strict=True):
        overwrite(model, weights)
    attacks = tuple(with_margin(named) for named in config.evaluation.attacks)
    judging = dataclasses.replace(config.evaluation, attacks=attacks)
    cost = float(trainer.forward_images)
    for weight in TENTHS:
        mixture = ProbabilityMixture(*models, weight).eval()
        validated = accuracies(mixture, task.data.validation, judging)
        cost += 2 * len(task.data.validation) * evaluation_cost(judging)
        test = functools.partial(accuracies, mixture, task.test, judging)
        yield cost, [Candidate(validated=validated, test=test)]


def with_margin(named: NamedAttack) -> NamedAttack:
    """The attack on the margin."""
    assert isinstance(named.attack, PGD)
    return dataclasses.replace(named, attack=dataclasses.replace(named.attack, loss="margin"))


def accuracies(model: nn.Module, split: Split, judging: EvaluationConfig) -> dict[str, float]:
    """The accuracy in each objective."""
    verdicts = evaluate(model, split, judging, seed=0, dtype=torch.float32)
    return {name: each.double().mean().item() for name, each in verdicts.items()}


BASELINES: dict[str, Callable[[Task], Iterator[Found]]] = {
    "adversarial training": adversarial_training,
    "adversarial training, 2 steps": two_steps,
    "TRADES": trades,
    "fine-tuning, interpolated": interpolation,
    "two models' probabilities": probability_mixture,
    "MO-PBT": mo_pbt,
}
