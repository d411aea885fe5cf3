"""Tries out a training before any work is done, so that what cannot run is reported at once."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import torch

from generalist_core.attacks.gradient import perturb
from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict, to_dict
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.device import resolve_device
from generalist_core.models.build import ModelFactory
from generalist_core.randomness import GeneratorNoise, generator
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.user_code import has_custom, running_user_code
from generalist_core.validation import InvalidConfigError
from search.config import SweepConfig
from search.files import make_folder


def preflight(config: TrainConfig, data: Dataset, model: ModelFactory | None = None) -> None:
    """Build a trainer, and run custom losses and attacks on two images.

    Raises:
        InvalidConfigError: something cannot run; the message says what and why.
    """
    with running_user_code(f"model {config.model.name}"):
        trainer = GeneralistTrainer(replace(config, n_accumulations=1), data, model=model)
    device, dtype = trainer.device, trainer.dtype
    noise = GeneratorNoise(generator(device, 0, "preflight"))
    x, y = next(iter(trainer.train_split.take(torch.arange(2)).batches(2, dtype)))
    for expert in trainer.experts:
        if has_custom(expert.config.attack, expert.config.loss):
            with running_user_code(f"expert {expert.config.name}"):
                expert.step(x, y, progress=0.0, noise=noise)
    for named in config.evaluation.attacks:
        if has_custom(named.attack):
            with running_user_code(f"evaluation attack {named.name}"):
                perturb(named.attack, trainer.evaluator.model, x, y, noise)


CONNECTING_S = 10.0
"""How long the head of a cluster may take to answer; Ray itself would try for many minutes."""


def require_reachable(address: str) -> None:
    """Check that something listens at HOST:PORT; `auto` is for Ray to find.

    Raises:
        InvalidConfigError: nothing listens there.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING_S).close()
    except (OSError, OverflowError) as error:
        raise InvalidConfigError(
            f"`address` must be that of a running Ray cluster, but {address} gives: {error}."
        ) from error


def check_that_it_can_start(
    config: SweepConfig, data: Dataset | None, model: ModelFactory | None
) -> None:
    """Check before any work is done that the cluster, data, model and device can be used."""
    resources, device = config.resources, config.base.device
    if resources.address is not None:
        require_reachable(resources.address)
    names_gpu = device not in ("auto", "cpu")
    if resources.local:
        resolve_device(device)
    elif resources.address is None and (resources.gpus_per_trial > 0 or names_gpu):
        resolve_device(device if names_gpu else "cuda")
        if resources.gpus_per_trial == 0:
            raise InvalidConfigError(
                "`gpus_per_trial` must be > 0 with a GPU device, but got "
                f"gpus_per_trial={resources.gpus_per_trial}, device={device}. "
                "Ray hides GPUs from trials that ask for none."
            )
    if config.warmups is not None:
        make_folder(Path(config.warmups.folder), "Give another --warmups.")
    on_cpu = from_dict({**to_dict(config.base), "device": "cpu"}, TrainConfig)
    data = data or load_dataset(config.base.data)
    preflight(on_cpu, data, model)
