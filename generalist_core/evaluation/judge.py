"""Verdicts on one batch: whether a model still classifies its images correctly under one attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generalist_core.attacks.counting import CountingModel
from generalist_core.attacks.gradient import n_gradients, perturb
from generalist_core.attacks.laws import audited, require_numbers
from generalist_core.config import FGSM, PGD
from generalist_core.config.suite import LIBRARY_ATTACKS, SuiteConfig, gradient_attack
from generalist_core.device import full_precision
from generalist_core.evaluation.autoattack import LibraryAttack, library_attack, library_cost
from generalist_core.evaluation.laws import require_claim
from generalist_core.randomness import generator

Judged = tuple[Tensor, tuple[str, ...]]
"""Verdicts, (n,), True where still correct, and the warnings of the attack."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A model under evaluation and the suite that attacks it.

    Every attack is audited, and its verdicts are recomputed on the images that it returns. A model
    that is not stable gives an image other logits when asked again, in another batch, or in full
    precision; what AutoAttack claims about it is then not checked, because AutoAttack spares the
    images that it finds misclassified when it begins.
    """

    model: CountingModel
    config: SuiteConfig
    n_classes: int
    is_stable: bool

    def verdicts(self, name: str, x: Tensor, y: Tensor, index: Tensor) -> Judged:
        """Verdicts on images `x` with labels `y` and indices `index`, (n,), under attack `name`.

        Raises:
            EvaluationError: the attack, or the model under it, breaks a law.
        """
        if name in LIBRARY_ATTACKS:
            return self._under_library(self.library(name), x, y)
        named = gradient_attack(name, self.config.norm, self.config.epsilon)
        if named is None:
            return self.correct(x, y), ()
        attack, restarts = named
        correct = torch.ones_like(y, dtype=torch.bool)
        for restart in range(restarts):
            left = correct.nonzero()[:, 0]
            if len(left) > 0:
                noise = ImageNoise(self.config.seed, (name, restart), index[left.cpu()])
                correct[left] = self._under_gradients(name, attack, x[left], y[left], noise)
        return correct, ()

    def full_cost(self, name: str) -> tuple[int, int]:
        """(forwards, gradients) for one image that is never broken, including its verdict."""
        if name in LIBRARY_ATTACKS:
            n_forwards, n_taken = library_cost(self.library(name))
            return n_forwards + 1, n_taken
        named = gradient_attack(name, self.config.norm, self.config.epsilon)
        if named is None:
            return 1, 0
        attack, restarts = named
        return restarts * (n_gradients(attack) + 1), restarts * n_gradients(attack)

    def library(self, name: str) -> LibraryAttack:
        """One of AutoAttack's components with the suite's settings."""
        return LibraryAttack(
            name=name,
            norm=self.config.norm,
            epsilon=self.config.epsilon,
            n_classes=self.n_classes,
            seed=self.config.seed,
            n_iterations=self.config.n_iterations,
            n_queries=self.config.n_queries,
        )

    def correct(self, x: Tensor, y: Tensor) -> Tensor:
        """Which images, (n,), the model classifies as `y`, in full precision."""
        with full_precision(x.device), torch.no_grad():
            logits = self.model(x)
        require_numbers(logits)
        verdicts: Tensor = logits.argmax(1) == y
        return verdicts

    def _under_gradients(
        self, name: str, attack: FGSM | PGD, x: Tensor, y: Tensor, noise: ImageNoise
    ) -> Tensor:
        n_taken = len(x) * n_gradients(attack)
        images = audited(
            name,
            lambda model: perturb(attack, model, x, y, noise),
            self.model,
            x,
            norm=self.config.norm,
            epsilon=self.config.epsilon,
            claimed=(n_taken, n_taken),
        )
        return self.correct(images, y)

    def _under_library(self, attack: LibraryAttack, x: Tensor, y: Tensor) -> Judged:
        crafted = []

        def craft(model: CountingModel) -> Tensor:
            crafted.append(library_attack(attack, model, x, y))
            return crafted[0].images

        follows_gradient = attack.name != "square" and attack.epsilon > 0
        fewest = len(x) * attack.n_iterations if follows_gradient and self.is_stable else 0
        images = audited(
            attack.name,
            craft,
            self.model,
            x,
            norm=attack.norm,
            epsilon=attack.epsilon,
            claimed=(fewest, None if follows_gradient else 0),
        )
        correct = self.correct(images, y)
        if self.is_stable:
            require_claim(attack.name, ~crafted[0].claimed, correct)
        return correct, crafted[0].warnings


class ImageNoise:
    """Noise that depends on the seed, a purpose and each image's index, but not on the batch."""

    def __init__(self, seed: int, purpose: tuple[str | int, ...], index: Tensor) -> None:
        cpu = torch.device("cpu")
        self.rngs = [generator(cpu, seed, "suite", *purpose, i) for i in index.tolist()]

    def uniform(self, like: Tensor, /) -> Tensor:
        """Uniform in [0, 1), of the shape, dtype and device of `like`."""
        return self._drawn(torch.rand, like)

    def normal(self, like: Tensor, /) -> Tensor:
        """Standard normal, of the shape, dtype and device of `like`."""
        return self._drawn(torch.randn, like)

    def _drawn(self, draw: Callable[..., Tensor], like: Tensor) -> Tensor:
        shape = like.shape[1:]
        rows = [draw(shape, generator=rng, dtype=like.dtype) for rng in self.rngs]
        return torch.stack(rows).to(like.device)
