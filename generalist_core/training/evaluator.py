"""Judging a model: which images it classifies correctly, natural and under attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generalist_core.attacks.cost import FORWARD
from generalist_core.attacks.counting import Counted
from generalist_core.attacks.gradient import Logits, perturb
from generalist_core.attacks.laws import require_numbers
from generalist_core.config import Attack, EvaluationConfig, Precision
from generalist_core.config.evaluation import MEAN, NATURAL, UNION
from generalist_core.config.mixing import Released
from generalist_core.data.splits import Split
from generalist_core.device import full_precision, resolve_precision
from generalist_core.models.folding import Folded, folded, up_to_date
from generalist_core.randomness import GeneratorNoise, Noise, generator
from generalist_core.training.averaging import Weights, overwrite
from generalist_core.training.forward import forward_of

Craft = Callable[[Attack, Counted, Tensor, Tensor, Noise], Tensor]
"""Makes adversarial images, as `perturb` does."""


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What was released after `epoch` epochs: the accuracies on `n_images` images.

    In place of a mixing ratio the global learner has the mark `global`.
    """

    mixing_ratio: Released
    accuracies: Mapping[str, float]
    n_images: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The accuracies of a learner by objective, and what it cost to know them."""

    accuracies: Mapping[str, float]
    forward_images: int


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
        craft: Craft = perturb,
    ) -> None:
        """Take over `model`, into which weights are copied to be judged."""
        self.craft = craft
        self.model = model.eval().requires_grad_(False)
        c, h, w = split.images.shape[1:]
        self.folded = folded(model, (c, h, w)) if fold_batchnorm else None
        self.crafting: Folded | None = None
        if self.folded and crafts_in(config, dtype, split.images.device) == "bfloat16":
            self.crafting = folded(model, (c, h, w), torch.bfloat16)
        self.split = split
        self.config = config
        self.seed = seed
        self.dtype = dtype

    def judge(
        self, weights: Weights, *, n_images: int | None = None, attacked: bool = True
    ) -> Judgement:
        """The accuracy in each objective on the first `n_images` images (all if None).

        Without `attacked`, only the natural objective is judged.
        """
        images = self.split.take(torch.arange(len(self.split))[:n_images])
        overwrite(self.model, weights)
        model = up_to_date(self.folded, self.model)
        if not attacked:
            verdict = correct(model, images, self.config.batch_size, self.dtype)
            found = accuracies({NATURAL: verdict}, (NATURAL,))
            return Judgement(accuracies=found, forward_images=len(images) * FORWARD)
        attacked_form = up_to_date(self.crafting, model)
        crafting = Counted(crafting_forward(attacked_form, images, self.config, self.dtype))
        verdicts = evaluate(
            model,
            images,
            self.config,
            seed=self.seed,
            dtype=self.dtype,
            crafting=crafting,
            craft=self.craft,
        )
        spent = crafting.forward_images + crafting.gradient_images
        return Judgement(
            accuracies=accuracies(verdicts, self.config.objective_names),
            forward_images=spent + len(verdicts) * len(images) * FORWARD,
        )


def crafts_in(config: EvaluationConfig, dtype: torch.dtype, device: torch.device) -> Precision:
    """The precision of attacks; that of `config` holds for float32 only."""
    if dtype == torch.float64:
        return "float64"
    return resolve_precision(config.precision, device)


def evaluate(
    model: nn.Module,
    split: Split,
    config: EvaluationConfig,
    *,
    seed: int,
    dtype: torch.dtype,
    crafting: Counted | None = None,
    craft: Craft = perturb,
) -> dict[str, Tensor]:
    """Verdicts, natural and by attack: for each image, (n,), whether it is classified correctly.

    The model should be in eval mode. The noise of each attack depends only on `seed` and its
    name, so that models are compared under the same noise. Attacks follow the gradients of
    `crafting`, by default the `crafting_forward` of the model.
    """
    device, size = split.images.device, config.batch_size
    tf32 = crafts_in(config, dtype, device) == "tfloat32"
    logits_of = crafting or Counted(crafting_forward(model, split, config, dtype))
    verdicts = {NATURAL: correct(model, split, size, dtype)}
    for named in config.attacks:
        noise = GeneratorNoise(generator(device, seed, "evaluation", named.name))
        attack = Crafting(
            attack=named.attack, noise=noise, logits_of=logits_of, tf32=tf32, craft=craft
        )
        verdicts[named.name] = correct(model, split, size, dtype, crafting=attack)
    return verdicts


def crafting_forward(
    model: nn.Module, split: Split, config: EvaluationConfig, dtype: torch.dtype
) -> Logits:
    """The forward that attacks follow: of the model, in the precision of `config`."""
    precision = crafts_in(config, dtype, split.images.device)
    return forward_of(model, autocasts=precision == "bfloat16")


def accuracies(verdicts: Mapping[str, Tensor], objectives: Sequence[str]) -> dict[str, float]:
    """The accuracy in each objective, from the verdicts (n,) of `evaluate`.

    See `generalist_core.config.EvaluationConfig` for `union` and `mean`.
    """
    attacked = [verdict for name, verdict in verdicts.items() if name != NATURAL]
    judged = dict(verdicts)
    if attacked:
        judged |= {UNION: torch.stack([*verdicts.values()]).all(0), MEAN: torch.stack(attacked)}
    return {name: judged[name].double().mean().item() for name in objectives}


@dataclass(frozen=True, kw_only=True, eq=False)
class Crafting:
    """How adversarial images are made: by an attack on a form of the model, with TF32 or not."""

    attack: Attack
    noise: Noise
    logits_of: Counted
    tf32: bool = False
    craft: Craft = perturb

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The adversarial images of `x`, in its own precision."""
        with full_precision(x.device, tf32=self.tf32):
            return self.craft(self.attack, self.logits_of, x, y, self.noise)


def correct(
    model: nn.Module,
    split: Split,
    batch_size: int,
    dtype: torch.dtype,
    *,
    crafting: Crafting | None = None,
) -> Tensor:
    """Which images, (n,), are classified correctly, after `crafting` if it is given.

    It is told in full precision, whatever the process allows elsewhere.

    Raises:
        EvaluationError: a logit is NaN.
    """
    found = []
    for x, y in split.batches(batch_size, dtype):
        judged = x if crafting is None else crafting(x, y)
        with full_precision(x.device), torch.no_grad():
            found.append(model(judged))
    logits = torch.cat(found)
    require_numbers(logits)
    verdicts: Tensor = logits.argmax(1) == split.labels
    return verdicts
