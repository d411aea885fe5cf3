"""Models of a sweep: the architecture, saved weights, and the mixtures on the front."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from generalist_core.config import Ratio, TrainConfig, as_weights
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory, build_model
from generalist_core.models.state import copied, load_state
from generalist_core.training.averaging import mix
from generalist_core.validation import InvalidConfigError
from search.errors import SweepFolderError
from search.files import load_tensors, save_tensors
from search.folders import SweepFolder
from search.front.front import Front


def empty_model(config: TrainConfig, data: Dataset, model: ModelFactory | None) -> nn.Module:
    """A model of the architecture, to load weights into."""
    if model is None:
        built = build_model(config.model, data.n_classes, data.shape, seed=config.seed)
    else:
        built = model(data.n_classes, data.shape)
    # the factory may return a model of the caller's, which must stay as it is
    return copied(built).eval()


def load_model(path: Path, architecture: nn.Module, *, trusted: bool) -> nn.Module:
    """The model in a file: a state dict for `architecture` or, if `trusted`, a whole module.

    Loading a whole module runs code; loading a state dict cannot. The batch counters of BatchNorm
    may be missing.

    Raises:
        InvalidConfigError: the file cannot be loaded, or is of another architecture.
    """
    if not path.is_file():
        raise InvalidConfigError(f"The model must be a file, but there is no file {path}.")
    _require_no_program(path)
    if trusted:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=False)
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise InvalidConfigError(
                f"{path} must be a complete file of torch, but: {error}"
            ) from error
        if isinstance(loaded, nn.Module):
            return loaded.eval()
    try:
        state = load_tensors(path)
    except SweepFolderError as error:
        cure = "It takes weights as export writes them; --trust also loads a whole module."
        raise InvalidConfigError(f"{error} {cure}") from error
    if not isinstance(state, dict):
        raise InvalidConfigError(
            f"{path} must hold a state dict, but holds {type(state).__name__}."
        )
    _load_weights(architecture, state, path)
    return architecture.eval()


def _require_no_program(path: Path) -> None:
    """Refuse what torch.jit.save and torch.export.save write, which attacks cannot run."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    kinds = {"models/model.json": "torch.export", "constants.pkl": "TorchScript"}
    for name, kind in kinds.items():
        if name in names:
            raise InvalidConfigError(
                f"The model must be a file of weights, but {path} is a program of {kind}. Evaluate "
                "the weights that `export --format weights` writes."
            )


def _load_weights(architecture: nn.Module, state: dict[str, Any], path: Path) -> None:
    try:
        load_state(architecture, state)
    except RuntimeError as error:
        raise InvalidConfigError(
            f"{path} must hold weights of the architecture, but {error}. Give --config, or --model "
            "and --width."
        ) from error


def write_models(folder: Path, front: Front) -> None:
    """Mix and write the weights of each point on the front; remove those of points that left it."""
    place = SweepFolder(folder)
    models = place.models
    models.mkdir(exist_ok=True)
    wanted = {f"{point.name}.pt": point for point in front.points}
    for name, point in wanted.items():
        if not (models / name).exists():
            averages = load_tensors(place.trial(point.trial).averages)
            save_tensors(models / name, mixed_state(averages, point.mixing_ratio))
    for stale in set(models.glob("*.pt")) - {models / name for name in wanted}:
        stale.unlink()


def mixed_state(averages: dict[str, Any], ratio: Ratio) -> dict[str, Any]:
    """The state dict of a mixture of experts' averages, in the experts' order."""
    names = list(next(iter(averages.values())))
    weights = as_weights(ratio, len(averages))
    mixed = mix([[state[name] for name in names] for state in averages.values()], weights)
    return dict(zip(names, mixed, strict=True))
