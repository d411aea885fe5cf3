"""The user's own losses and attacks: functions by name, held to what they declare and to the laws.

An attack is called `attack(logits_of, x, y, *, epsilon, noise)`: it returns adversarial images for
the images `x`, (n, c, h, w) in [0, 1], of labels `y`, (n,), in the ball around them and in [0, 1].
`logits_of` maps images to logits, (n, classes); `attacks.input_gradient` takes its gradient.
Random numbers come from `noise.uniform(x)` and `noise.normal(x)`, in the shape of `x`: so a run can
go on, and warm-ups be shared, to equal bits.

A loss is called `loss(logits_of, x, x_adv, y)` and returns the mean over a batch; a natural expert
passes its images as both `x` and `x_adv`. Where an expert mixes images, `y` are probabilities.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from generalist_core.checks import require_in_ball, require_law
from generalist_core.config import OwnAttack, OwnLoss, TrainConfig
from generalist_core.frozen import Counted
from generalist_core.imports import load_callable
from generalist_core.randomness import Noise
from generalist_core.validation import InvalidConfigError, require

Part = TypeVar("Part")


def own_attack(
    attack: OwnAttack, logits_of: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, noise: Noise
) -> Tensor:
    """The adversarial images of the user's attack.

    Raises:
        EvaluationError: it left ball or box, cost more than it declares, or drew from elsewhere.
        InvalidConfigError: there is no such function, or its file has changed.
    """
    name, counted = f"attack {attack.function}", Counted(logits_of)
    state = torch.random.get_rng_state()
    images: Tensor = _function(attack.function, attack.source)(
        counted, x, y, epsilon=attack.epsilon, noise=noise
    )
    is_alike = isinstance(images, Tensor) and images.dtype == x.dtype
    law = f"{name} returns images of type {x.dtype}"
    require_law(is_alike, law, f"{getattr(images, 'dtype', type(images))}", "Keep that of `x`.")
    left = torch.equal(state, torch.random.get_rng_state())
    law = f"{name} leaves torch's global random state alone"
    require_law(left, law, "another", "Draw from `noise`.")
    spent = (counted.forward_images + counted.gradient_images) / len(x)
    law = f"{name} costs at most forward_images={attack.forward_images} an image"
    require_law(spent <= attack.forward_images, law, f"{spent:g}", "Declare what it costs.")
    require_in_ball(name, images.detach(), x, norm=attack.norm, epsilon=attack.epsilon)
    return images.detach()


def own_loss(
    loss: OwnLoss, logits_of: Callable[[Tensor], Tensor], x: Tensor, x_adv: Tensor, y: Tensor
) -> Tensor:
    """The user's loss, a scalar.

    Raises:
        EvaluationError: it is no scalar with a gradient, or took more forwards than it declares.
        InvalidConfigError: there is no such function, or its file has changed.
    """
    name, counted = f"loss {loss.function}", Counted(logits_of)
    value: Tensor = _function(loss.function, loss.source)(counted, x, x_adv, y)
    fits = isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad
    law, got = f"{name} returns a scalar with a gradient", f"{getattr(value, 'shape', type(value))}"
    require_law(fits, law, got, "Return the mean over the batch.")
    spent = counted.forward_images / len(x)
    law = f"{name} takes at most n_forwards={loss.n_forwards} an image"
    require_law(spent <= loss.n_forwards, law, f"{spent:g}", "Declare how many it takes.")
    return value


def pinned(config: TrainConfig) -> TrainConfig:
    """The configuration with its own functions at absolute paths, and the digests of their files.

    Raises:
        InvalidConfigError: a file is not there, or is not the one that was pinned before.
    """
    experts = tuple(
        replace(expert, attack=_pin(expert.attack), loss=_pin(expert.loss))
        for expert in config.experts
    )
    attacks = tuple(
        replace(named, attack=_pin(named.attack)) for named in config.evaluation.attacks
    )
    evaluation = replace(config.evaluation, attacks=attacks)
    return replace(config, experts=experts, evaluation=evaluation)


def has_own(*parts: object) -> bool:
    """Whether one of a configuration's parts is the user's own function."""
    return any(isinstance(part, OwnAttack | OwnLoss) for part in parts)


def _pin(part: Part) -> Part:
    if not isinstance(part, OwnAttack | OwnLoss):
        return part
    place, _, function = part.function.rpartition(":")
    if place.endswith(".py"):
        place = str(Path(place).absolute())
    source = _source(place)
    _require_unchanged(part.function, part.source, source)
    return replace(part, function=f"{place}:{function}", source=source)


@functools.cache
def _function(name: str, source: str) -> Callable[..., Any]:
    """The function, loaded once a process, from the file with that digest if one is given."""
    found = load_callable(name, what="function")
    _require_unchanged(name, source, _source(name.rpartition(":")[0]))
    return found


def _require_unchanged(name: str, pinned: str, source: str) -> None:
    cure = "Put the file back, or begin anew."
    require(pinned in ("", source), f"{name} as it was when the run began", "another file", cure)


def _source(place: str) -> str:
    """The digest of a file, or of that of a module."""
    if not place.endswith(".py"):
        spec = importlib.util.find_spec(place) if place else None
        place = (spec.origin if spec is not None else None) or place
    try:
        return hashlib.sha256(Path(place).read_bytes()).hexdigest()
    except OSError as error:
        law = "`function` must be FILE.py:FUNCTION or MODULE:FUNCTION"
        raise InvalidConfigError(f"{law}, but {place!r} cannot be read: {error}.") from error
