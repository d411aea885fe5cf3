"""What an expert's warm-up depends on, hashed to keys, and whether the method throws it away.

A warm-up is what an expert trains before the first sync. Its state after an epoch follows from the
training images, the initial model, the seed, the batch size, the precision, the averaging, the
expert's own configuration, and the values of the schedules in the epochs so far; nothing else is
part of a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from generalist_core.config import ExpertConfig, Precision, TrainConfig
from generalist_core.config.codec import to_dict
from generalist_core.fingerprints import json_digest
from generalist_core.validation import InvalidConfigError

VERSION = 6
"""To be raised with every change of this package that changes the bits of a training."""


LATER = ("schedule", "lr_warmup_epochs", "rests", "earlier")
"""The settings of an expert of which only what they do up to an epoch is in a key."""


def ratio_is_constant(config: TrainConfig) -> bool:
    """Whether the ratio keeps its first value until the first sync."""
    first = config.weights_at(0)
    return all(config.weights_at(epoch) == first for epoch in range(config.sync.start_epoch))


def contribution_weights(config: TrainConfig) -> list[tuple[float, ...]]:
    """The weight of each expert's source in its contribution, for each epoch of the warm-up.

    At a constant ratio it is 1: contributions are then independent of the ratio, and the global
    learner is their mixture at it. Otherwise it is the expert's weight in the mixture, and the
    global learner is the sum of the contributions.
    """
    epochs = range(config.sync.start_epoch)
    if ratio_is_constant(config):
        return [(1.0,) * len(config.experts) for _ in epochs]
    return [config.weights_at(epoch) for epoch in epochs]


def discarded_warmups(config: TrainConfig) -> frozenset[str]:
    """The experts whose weight is 0 in every epoch up to and including the first sync.

    The sync overwrites their weights, and nothing of them has entered the global learner. The set
    is empty without `config.sync.skip_discarded_warmup`, and where there is no warm-up.
    """
    start = config.sync.start_epoch
    if start == 0 or not config.sync.skip_discarded_warmup:
        return frozenset()
    weights = zip(*(config.weights_at(epoch) for epoch in range(start + 1)), strict=True)
    pairs = zip(config.experts, weights, strict=True)
    return frozenset(expert.name for expert, its_weights in pairs if not any(its_weights))


def progress_at(
    config: TrainConfig, expert: ExpertConfig, epoch: int, step: int, n_batches: int
) -> float:
    """The fraction of the run that is done, as the expert's schedule sees it: by step or epoch."""
    if expert.schedule.per_step:
        return (epoch + step / n_batches) / config.epochs
    return config.progress_in(epoch)


def rate_factor(
    config: TrainConfig, expert: ExpertConfig, epoch: int, step: int, n_batches: int
) -> float:
    """What an expert's learning rate is scaled by at a step: its schedule, times its warm-up's."""
    n_rising = expert.lr_warmup_epochs * n_batches
    rise = min(1.0, (epoch * n_batches + step + 1) / n_rising) if n_rising > 0 else 1.0
    return rise * expert.schedule(progress_at(config, expert, epoch, step, n_batches))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a warm-up depends on beside the configuration.

    `data` is the `split_fingerprint` of the training images, wherever they came from; `model` the
    `model_fingerprint` of the initial model, None if it has none; `n_batches` the number of batches
    per epoch; `device_kind` such as `cpu`: devices of different kinds compute different bits;
    `precision` is the one that the run's `auto` has become.
    """

    data: str
    model: str | None
    n_batches: int
    device_kind: str
    precision: Precision


def state_keys(config: TrainConfig, expert: str, origin: Origin) -> tuple[str, ...]:
    """The names of an expert's states after 0, 1, ..., `sync.start_epoch` epochs, by content.

    Each key is chained to the one before it by what its epoch adds: the factors of the learning
    rate at each step, the weight in the contribution, and settings that are new. So a state is
    shared by all runs that agree up to its epoch, whatever their first sync, length, later rates or
    later settings; equal keys mean equal bits on the CPU. Evaluation, syncs, other experts and a
    constant ratio are in no key.

    Raises:
        InvalidConfigError: the model has no fingerprint, so that none could be told to be equal.
    """
    if origin.model is None:
        raise InvalidConfigError(
            "A model must have a fingerprint for its warm-ups to be shared, but got none. Leave "
            "sharing off, or remove from the model what the log names."
        )
    index, chosen = next((i, e) for i, e in enumerate(config.experts) if e.name == expert)
    mixing = config.mixing
    key = json_digest(
        {
            "versions": [VERSION, torch.__version__],
            "device_kind": origin.device_kind,
            # the order in which a convolution's gradients are summed follows the threads
            "threads": torch.get_num_threads() if origin.device_kind == "cpu" else None,
            "data": [origin.data, config.data.crop_padding, config.data.flip],
            "model": origin.model,
            "run": [config.seed, config.batch_size, origin.precision],
            "rounding": [
                config.fold_batchnorm,
                config.channels_last,
                config.compile,
                config.cuda_graph,
            ],
            "parts": config.n_accumulations,
            "averaging": [mixing.source, mixing.decay, mixing.decay_warmup],
            "expert": _settings(chosen, 0),
        }
    )
    keys = [key]
    for epoch, weights in enumerate(contribution_weights(config)):
        added: list[Any] = [weights[index], _rate_factors(config, chosen, epoch, origin.n_batches)]
        if any(past.until == epoch for past in chosen.earlier):
            added.append(_settings(chosen, epoch))
        key = json_digest([key, *added])
        keys.append(key)
    return tuple(keys)


def _settings(expert: ExpertConfig, epoch: int) -> dict[str, Any]:
    """What an expert trains with in an epoch, apart from its learning rates."""
    settings = to_dict(expert.at(epoch))
    return {name: value for name, value in settings.items() if name not in LATER}


def _rate_factors(
    config: TrainConfig, expert: ExpertConfig, epoch: int, n_batches: int
) -> list[float]:
    """The factors of the rate at the steps of an epoch; a single one where they are all equal."""
    changes = expert.schedule.per_step or epoch < expert.lr_warmup_epochs
    steps = range(n_batches if changes else 1)
    factors = [rate_factor(config, expert, epoch, step, n_batches) for step in steps]
    return factors if len(set(factors)) > 1 else factors[:1]
