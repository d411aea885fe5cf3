"""Models in files: weights as people save them, exported programs, and the cards of exports."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict
from generalist_core.data.splits import Dataset
from generalist_core.fingerprints import file_digest
from generalist_core.models.weights import load_named
from generalist_core.training.averaging import load_weights
from generalist_core.validation import InvalidConfigError
from search.errors import SweepFolderError
from search.files import load_tensors, read_json, read_sealed_json
from search.running.mixtures import empty_model, point_state
from search.study.folder import open_sweep, require_custom_parts


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A model in a file, or a point of a sweep, and how it is loaded.

    `config` is what it was trained with, as far as a card or the sweep tells (else None). `load`
    takes the configuration that counts, and its images.
    """

    config: TrainConfig | None
    load: Callable[[TrainConfig, Dataset], nn.Module]
    has_custom_data: bool = False
    has_custom_model: bool = False

    def custom_parts(self) -> set[str]:
        """Which of `data` and `model` were passed from Python, so that the name says nothing."""
        parts = {"data": self.has_custom_data, "model": self.has_custom_model}
        return {name for name, is_custom in parts.items() if is_custom}


def saved_model(path: Path, *, pick: str | None = None, trusted: bool = False) -> SavedModel:
    """The model in a file, or that of a point of a sweep in its folder, by default the knee.

    Raises:
        InvalidConfigError: a point is picked from a file, or there is no such point.
        SweepFolderError: a sweep or a card is damaged, or a file is another one than its card's.
    """
    if path.is_dir():
        sweep = open_sweep(path)
        point = sweep.pick(pick or "knee").point
        require_custom_parts(path, None, None)

        def of_point(config: TrainConfig, data: Dataset) -> nn.Module:
            network = empty_model(config, data, None)
            load_weights(network, point_state(sweep.files, point.trial, point.mixing_ratio))
            return network

        config = _without_start(from_dict(point.config, TrainConfig))
        return SavedModel(config=config, load=of_point)
    if pick is not None:
        raise InvalidConfigError(
            f"`--pick` must be given with the folder of a sweep, but {path} is none."
        )
    card = card_of(path) or {"config": None, "sweep": {}}

    def of_file(config: TrainConfig, data: Dataset) -> nn.Module:
        return load_model(path, partial(empty_model, config, data, None), trusted=trusted)

    return SavedModel(
        config=card["config"] and _without_start(from_dict(card["config"], TrainConfig)),
        load=of_file,
        has_custom_data=card["sweep"].get("custom_data", False),
        has_custom_model=card["sweep"].get("custom_model", False),
    )


def _without_start(config: TrainConfig) -> TrainConfig:
    """The configuration without the weights that training began from, which are not needed."""
    return replace(config, model=replace(config.model, init=None, init_digest=""))


def card_of(path: Path) -> dict[str, Any] | None:
    """The card that `export` wrote beside a file; None if there is none.

    Raises:
        SweepFolderError: the card is damaged, or the file is another one than the card's.
    """
    place = path.with_name(f"{path.name}.json")
    if not (path.is_file() and place.is_file()):
        return None
    document = read_json(place)
    if not (isinstance(document, dict) and {"file", "config", "digest"} <= set(document)):
        return None  # it is somebody else's
    card = read_sealed_json(place)
    if file_digest(path) != card["file"]["sha256"]:
        raise SweepFolderError(
            f"{path} must be the file of its card {place}, but the digest does not match. Export "
            "it again, or remove the card and name the model by options."
        )
    return card


def load_model(path: Path, architecture: Callable[[], nn.Module], *, trusted: bool) -> nn.Module:
    """The model in a file, in eval mode: weights or, if `trusted`, a module or a program.

    Loading a module or a program of TorchScript or torch.export runs code; loading weights cannot.
    Weights may be saved as `generalist_core.models.weights` says. Only for them the `architecture`
    is built.

    Raises:
        InvalidConfigError: the file cannot be loaded, or is of another architecture.
    """
    if not path.is_file():
        raise InvalidConfigError(f"The model must be a file, but there is no file {path}.")
    kind = _kind_of(path)
    if kind is not None and not trusted:
        raise InvalidConfigError(
            f"The model must be a file of weights, but {path} is a program of {kind}, whose "
            "loading may run code. If you trust the file, give --trust."
        )
    if not trusted:
        try:
            loaded = load_tensors(path)
        except SweepFolderError as error:
            cure = "It takes weights; --trust also loads whole modules and any checkpoint."
            raise InvalidConfigError(f"{error} {cure}") from error
    else:
        try:
            loaded = LOADERS[kind](path)
        except Exception as error:  # a changed bit can raise anything
            raise InvalidConfigError(
                f"{path} must be a complete file of torch, but: {error}"
            ) from error
    if isinstance(loaded, nn.Module):
        return loaded.eval()
    if not isinstance(loaded, dict):
        raise InvalidConfigError(
            f"{path} must hold a state dict, but holds {type(loaded).__name__}."
        )
    network = architecture()
    load_named(network, loaded, path, "Give --config, or --model and --width.")
    return network.eval()


class Program(nn.Module):
    """A program, whose mode is that in which it was made; an exported one refuses to change it."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        for parameter in program.parameters():  # TorchScript copies no others as leaves
            parameter.requires_grad = False
        for module in program.modules():
            module.training = False

    def train(self, mode: bool = True) -> Program:
        """Leave the program as it is."""
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        """What the program makes of images."""
        logits: Tensor = self.program(x)
        return logits


def _load_torchscript(path: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends torch.export
        return Program(torch.jit.load(path, map_location="cpu"))  # type: ignore[no-untyped-call]


LOADERS: dict[str | None, Callable[[Path], Any]] = {
    None: lambda path: torch.load(path, map_location="cpu", weights_only=False),
    "TorchScript": _load_torchscript,
    "torch.export": lambda path: Program(
        torch.export.load(io.BytesIO(path.read_bytes())).module()  # a path must end in .pt2
    ),
}
"""How what runs code is loaded, by its kind."""


def _kind_of(path: Path) -> str | None:
    """`TorchScript` or `torch.export` if one of them wrote the file as a program."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None  # what is wrong with the file is found where it is loaded
    kinds = {"models/model.json": "torch.export", "constants.pkl": "TorchScript"}
    return next((kind for name, kind in kinds.items() if name in names), None)
