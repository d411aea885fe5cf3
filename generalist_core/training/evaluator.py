"""Judging a model: which images it classifies correctly, natural and under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generalist_core.attacks.gradient import perturb
from generalist_core.config import Attack, EvaluationConfig, Ratio
from generalist_core.config.evaluation import MEAN, NATURAL, UNION
from generalist_core.data.splits import Split
from generalist_core.device import full_precision
from generalist_core.models.folding import folded, up_to_date
from generalist_core.randomness import GeneratorNoise, Noise, generator
from generalist_core.training.averaging import Weights, overwrite


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One released mixture after `epoch` epochs: the accuracies on `n_images` images."""

    mixing_ratio: Ratio
    accuracies: Mapping[str, float]
    n_images: int
    epoch: int


class Evaluator:
    """Judges weights of one architecture on one split."""

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        config: EvaluationConfig,
        *,
        seed: int,
        dtype: torch.dtype,
        fold_batchnorm: bool = False,
    ) -> None:
        """Take over `model`, into which weights are copied to be judged."""
        self.model = model.eval().requires_grad_(False)
        c, h, w = split.images.shape[1:]
        self.folded = folded(model, (c, h, w)) if fold_batchnorm else None
        self.split = split
        self.config = config
        self.seed = seed
        self.dtype = dtype

    def judge(
        self, weights: Weights, *, n_images: int | None = None, attacked: bool = True
    ) -> dict[str, float]:
        """The accuracy in each objective on the first `n_images` images (all if None).

        Without `attacked`, only the natural objective is judged.
        """
        images = self.split.take(torch.arange(len(self.split))[:n_images])
        overwrite(self.model, weights)
        model = up_to_date(self.folded, self.model)
        if attacked:
            verdicts = evaluate(model, images, self.config, seed=self.seed, dtype=self.dtype)
        else:
            verdicts = {NATURAL: correct(model, images, self.config.batch_size, self.dtype)}
        return accuracies(verdicts, self.config.objective_names if attacked else (NATURAL,))


def evaluate(
    model: nn.Module, split: Split, config: EvaluationConfig, *, seed: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Verdicts, natural and by attack: for each image, (n,), whether it is classified correctly.

    The model should be in eval mode. The noise of each attack depends only on `seed` and its
    name, so that models are compared under the same noise.
    """
    verdicts = {NATURAL: correct(model, split, config.batch_size, dtype)}
    for named in config.attacks:
        noise = GeneratorNoise(generator(split.images.device, seed, "evaluation", named.name))
        verdicts[named.name] = correct(
            model, split, config.batch_size, dtype, attack=named.attack, noise=noise
        )
    return verdicts


def accuracies(verdicts: Mapping[str, Tensor], objectives: Sequence[str]) -> dict[str, float]:
    """The accuracy in each objective, from the verdicts (n,) of `evaluate`.

    See `generalist_core.config.EvaluationConfig` for `union` and `mean`.
    """
    attacked = [verdict for name, verdict in verdicts.items() if name != NATURAL]
    judged = dict(verdicts)
    if attacked:
        judged |= {UNION: torch.stack([*verdicts.values()]).all(0), MEAN: torch.stack(attacked)}
    return {name: judged[name].double().mean().item() for name in objectives}


def correct(
    model: nn.Module,
    split: Split,
    batch_size: int,
    dtype: torch.dtype,
    *,
    attack: Attack | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """Which images, (n,), are classified correctly, under `attack` if one is given.

    It is computed in full precision, whatever the process allows elsewhere.
    """
    verdicts = []
    with full_precision(split.images.device):
        for x, y in split.batches(batch_size, dtype):
            judged = x
            if attack is not None and noise is not None:
                judged = perturb(attack, model, x, y, noise)
            with torch.no_grad():
                verdicts.append(model(judged).argmax(1) == y)
    return torch.cat(verdicts)
