"""Attacks that judge learners, recorded once on a GPU for all learners of a run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from generalist_core.attacks.cost import attack_cost
from generalist_core.attacks.counting import Counted
from generalist_core.attacks.gradient import Logits, perturb
from generalist_core.config import FGSM, PGD, Attack
from generalist_core.randomness import Noise
from generalist_core.recording.numbers import Number, StepNumbers
from generalist_core.recording.steps import Record, RecordedStep, Recordings, form_of

MOST = 64
"""Far more than the attacks of a run and the sizes of its batches."""

NO_NUMBERS = StepNumbers(first=0, columns={})


class RecordedAttacks:
    """Makes adversarial images as `perturb` does, of models whose weights change in place.

    Recorded are attacks that do the same whatever becomes of an image; others run as they are.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.recordings = Recordings(most=MOST)

    def __call__(
        self, attack: Attack, logits_of: Counted, x: Tensor, y: Tensor, noise: Noise
    ) -> Tensor:
        """The adversarial images of `x`; they are counted where the model is not asked again."""
        if not isinstance(attack, FGSM | PGD):
            return perturb(attack, logits_of, x, y, noise)
        begin = functools.partial(self._begun, attack, logits_of.logits_of, x, y)
        step = self.recordings.of((attack, form_of(x, y)), begin)
        (made,) = step.tensors()
        made.copy_(x)
        logits_of.forward_images += attack_cost(attack) * len(x)
        return step(0, x, y, [noise], torch.empty(0, device=x.device))

    def _begun(self, attack: Attack, logits_of: Logits, x: Tensor, y: Tensor) -> RecordedStep:
        made = torch.empty_like(x)

        def do(
            _: int | None,
            x: Tensor,
            y: Tensor,
            noises: Sequence[Noise],
            numbers: Mapping[str, Number],  # noqa: ARG001
        ) -> Tensor:
            images = perturb(attack, logits_of, x, y, noises[0])
            made.copy_(images)
            return images

        return RecordedStep(do, x, y, 1, NO_NUMBERS, tensors=lambda: [made], record=self.record)
