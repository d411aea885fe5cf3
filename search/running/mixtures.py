"""Models of a sweep: the architecture, saved weights, and the mixtures on the front."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from generalist_core.config import Ratio, TrainConfig, as_weights
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory, build_model
from generalist_core.training.averaging import mix, names_of
from generalist_core.validation import InvalidConfigError, require
from search.errors import SweepFolderError
from search.files import load_tensors, save_tensors
from search.front.front import Front
from search.running.trial import AVERAGES


def empty_model(config: TrainConfig, data: Dataset, model: ModelFactory | None) -> nn.Module:
    """The architecture, to load weights into."""
    if model is not None:
        return model(data.n_classes, data.shape).eval()
    return build_model(config.model, data.n_classes, data.shape, seed=config.seed).eval()


def load_model(path: Path, architecture: nn.Module, *, trusted: bool) -> nn.Module:
    """The model that a file holds: a state dict for `architecture`, or if `trusted` a whole module.

    A whole module runs code when it is loaded; a state dict cannot. BatchNorm's batch counters may
    be missing.

    Raises:
        InvalidConfigError: not loadable, or not of this architecture.
    """
    if trusted:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=False)
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise InvalidConfigError(
                f"{path} must be a whole file of torch, but: {error}"
            ) from error
        if isinstance(loaded, nn.Module):
            return loaded.eval()
    try:
        state = load_tensors(path)
    except SweepFolderError as error:
        cure = "If you trust its author, load a whole module with --trust."
        raise InvalidConfigError(f"{error} {cure}") from error
    require(isinstance(state, dict), "a state dict", f"{type(state).__name__} in {path}")
    needed, own = set(names_of(architecture)), set(architecture.state_dict())
    law, cure = "weights of the architecture", "Give --config, or --model and --width."
    missing, unknown = sorted(needed - set(state)), sorted(set(state) - own)
    require(not missing and not unknown, law, f"no {missing[:3]}, unknown {unknown[:3]}", cure)
    try:
        architecture.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InvalidConfigError(f"`{law}` must be given, but {error}. {cure}") from error
    return architecture.eval()


def write_models(folder: Path, front: Front) -> None:
    """Mix and write the weights of every point on the front; drop those that have left it."""
    models = folder / "models"
    models.mkdir(exist_ok=True)
    wanted = {f"{point.name}.pt": point for point in front.points}
    for name, point in wanted.items():
        if not (models / name).exists():
            averages = load_tensors(folder / "trials" / point.trial / AVERAGES)
            save_tensors(models / name, mixed_state(averages, point.mixing_ratio))
    for stale in set(models.glob("*.pt")) - {models / name for name in wanted}:
        stale.unlink()


def mixed_state(averages: dict[str, Any], ratio: Ratio) -> dict[str, Any]:
    """The state dict of a mixture of experts' averages, in the experts' order."""
    names = list(next(iter(averages.values())))
    weights = as_weights(ratio, len(averages))
    mixed = mix([[state[name] for name in names] for state in averages.values()], weights)
    return dict(zip(names, mixed, strict=True))
