"""A sweep with a custom loss and a custom attack: functions at the top level of a file."""

import dataclasses
import sys

import torch.nn.functional as F

from generalist_core import short
from generalist_core.attacks.gradient import input_gradient
from generalist_core.config import CustomAttack, CustomLoss
from generalist_core.user_code import callable_name
from search import SweepConfig, sweep


def attack(logits_of, x, y, *, epsilon, noise):
    """Two steps of signed gradients from a random start: 2 forwards and 2 gradients per image."""
    x_adv = (x + epsilon * (2 * noise.uniform(x) - 1)).clamp(0, 1)
    for _ in range(2):
        step = input_gradient(logits_of, x_adv, lambda logits: F.cross_entropy(logits, y)).sign()
        x_adv = x + (x_adv + 0.7 * epsilon * step - x).clamp(-epsilon, epsilon)
    return x_adv.clamp(0, 1)


def loss(logits_of, x, x_adv, y):
    """Half on clean images, half on adversarial ones: 2 forwards per image."""
    return (F.cross_entropy(logits_of(x), y) + F.cross_entropy(logits_of(x_adv), y)) / 2


if __name__ == "__main__":
    config = short(epochs=6)
    natural, robust = config.experts
    custom_attack = CustomAttack(function=callable_name(attack), epsilon=0.2, forward_images=4)
    custom_loss = CustomLoss(function=callable_name(loss), n_forwards=2)
    robust = dataclasses.replace(robust, attack=custom_attack, loss=custom_loss)
    config = dataclasses.replace(config, experts=(natural, robust))
    result = sweep(SweepConfig(base=config, space="mixing", trials=4), sys.argv[1])
    print(result.pick("knee").reason)
