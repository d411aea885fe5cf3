"""A model of the sweep for use elsewhere: weights or a whole program, and a card that tells all.

    FILE        a state dict, a TorchScript program, or a program of `torch.export`
    FILE.json   the card: how to load it, what it was measured at and how, where it came from

The card is written last: where it is, the model is whole.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict, to_dict
from generalist_core.data.splits import Dataset
from generalist_core.fingerprints import content_digest
from generalist_core.models.build import ModelFactory, build_model
from generalist_core.training.averaging import load_weights
from generalist_core.validation import InvalidConfigError, require, require_one_of
from search.api.verify import VERIFIED
from search.errors import SweepFolderError
from search.files import load_tensors, read_json, write_bytes, write_json
from search.folders import SweepFolder
from search.front.pick import Pick
from search.front.points import FrontPoint
from search.running.mixtures import empty_model, mixed_state
from search.running.trial import cached_dataset
from search.study.folder import REQUEST, Sweep, require_custom_parts

LOADING = {
    "weights": ("from search import load_export", "model = load_export({name!r})"),
    "torchscript": ("import torch", "model = torch.jit.load({name!r})"),
    "exported": ("import torch", "model = torch.export.load({name!r}).module()"),
}
"""The formats, each with what loads it; a third line calls the model."""

CALL = "logits = model(images)"

N_TRACED = 2
"""Images that a program is made with; one would be taken for all that ever comes."""


def export(
    sweep: Sweep,
    spec: str,
    path: Path,
    *,
    file_format: str = "weights",
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write the model of a point of the front, in float32 and eval mode; returns its card.

    Args:
        sweep: a sweep in its folder.
        spec: which point, see `search.front.pick.pick`.
        path: the new file; the card stands beside it.
        file_format: `weights`, a state dict; `torchscript` or `exported`, whole programs for any
            batch size that need none of this code.
        data: the images, if the sweep was given its own.
        model: the factory of models, if the sweep was given its own.
        force: write over files that are there.

    Raises:
        InvalidConfigError: no such point or format, or a part of the sweep's own is missing.
        SweepFolderError: the file is there, or the trial's weights are not.
        ExportError: the model cannot be made a program.
    """
    require_one_of("format", file_format, LOADING)
    card_path = path.with_name(f"{path.name}.json")
    _check_target(path, card_path, force=force)
    picked = sweep.pick(spec)
    data, model = data or sweep.custom.data, model or sweep.custom.model
    require_custom_parts(sweep.folder, data, model)
    config = from_dict(picked.point.config, TrainConfig)
    images = data or cached_dataset(config.data)
    network = empty_model(config, images, model)
    load_weights(network, mixed_state(_averages(sweep, picked.point), picked.point.mixing_ratio))
    content = _serialised(network, images.shape, file_format)
    card = _card(sweep, picked, images, file_format, path.name)
    card["file"] |= {
        "sha256": content_digest(content),
        "torch": str(torch.__version__),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    write_bytes(path, content)
    write_json(card_path, card)
    return card


def load_export(path: str | Path, *, model: ModelFactory | None = None) -> nn.Module:
    """The model that `export` wrote as weights, in eval mode; its architecture is in the card.

    Raises:
        InvalidConfigError: the card is of another format, or a `model` of one's own is missing.
        SweepFolderError: no such file or card, or a damaged one.
    """
    path = Path(path)
    card = read_json(path.with_name(f"{path.name}.json"))
    file_format = card["file"]["format"]
    cure = f"Load it so: {'; '.join(card['load'])}"
    require(file_format == "weights", "a file of weights", f"{file_format} in {path}", cure)
    law, cure = "the model of the sweep", "Call load_export(path, model=...) with it."
    require(model is not None or not card["sweep"]["custom_model"], law, "none", cure)
    config, shape = from_dict(card["config"], TrainConfig), tuple(card["input"]["shape"])
    classes = card["output"]["classes"]
    network = (model or _factory(config))(classes, shape)
    network.load_state_dict(load_tensors(path))
    return network.eval()


class ExportError(InvalidConfigError):
    """A model that cannot be made a program."""


def _factory(config: TrainConfig) -> ModelFactory:
    return lambda n_classes, shape: build_model(config.model, n_classes, shape, seed=config.seed)


def _check_target(path: Path, card: Path, *, force: bool) -> None:
    if not path.parent.is_dir():
        raise SweepFolderError(f"{path.parent} must be a folder, but is none. Make it first.")
    there = [str(file) for file in (path, card) if file.exists()]
    if there and not force:
        raise SweepFolderError(
            f"{' and '.join(there)} must not be there yet. Give another --to, or --force."
        )


def _averages(sweep: Sweep, point: FrontPoint) -> dict[str, Any]:
    """The experts' averages of a point's trial; kept are those of trials on the front."""
    path = SweepFolder(sweep.folder).trial(point.trial).averages
    if not path.is_file():
        kept = ", ".join(sorted({point.trial for point in sweep.front.points}))
        raise SweepFolderError(
            f"{path} must hold the weights of trial {point.trial}, but is not there. They are kept "
            f"for trials on the front: {kept}."
        )
    return load_tensors(path)


def _serialised(network: nn.Module, shape: tuple[int, int, int], file_format: str) -> bytes:
    buffer = io.BytesIO()
    if file_format == "weights":
        torch.save(network.state_dict(), buffer)
        return buffer.getvalue()
    write, load = _PROGRAMS[file_format]
    try:
        write(network, torch.rand(N_TRACED, *shape, generator=torch.Generator()), buffer)
    except Exception as error:
        raise ExportError(_cannot(file_format, str(error))) from error
    buffer.seek(0)
    _check(network, load(buffer), shape, file_format)
    return buffer.getvalue()


def _write_torchscript(network: nn.Module, images: Tensor, buffer: io.BytesIO) -> None:
    with warnings.catch_warnings():
        # torch advises torch.export, which is the other format; what has no Python needs this one
        warnings.simplefilter("ignore")
        program = torch.jit.trace(network, images, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(program, buffer)


def _load_torchscript(buffer: io.BytesIO) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: nn.Module = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    return program


def _write_exported(network: nn.Module, images: Tensor, buffer: io.BytesIO) -> None:
    any_number = {0: torch.export.Dim("n")}
    program = torch.export.export(network, (images,), dynamic_shapes=(any_number,))
    torch.export.save(program, buffer)


def _load_exported(buffer: io.BytesIO) -> nn.Module:
    return torch.export.load(buffer).module()


_PROGRAMS = {
    "torchscript": (_write_torchscript, _load_torchscript),
    "exported": (_write_exported, _load_exported),
}


@torch.no_grad()
def _check(
    network: nn.Module, program: nn.Module, shape: tuple[int, int, int], file_format: str
) -> None:
    """Check that a program does as its model, for other numbers of images than it was made with."""
    for n in (1, N_TRACED + 1):
        images = torch.rand(n, *shape, generator=torch.Generator())
        try:
            same = torch.allclose(program(images), network(images), rtol=1e-4, atol=1e-5)
        except RuntimeError as error:
            raise ExportError(_cannot(file_format, str(error))) from error
        if not same:
            raise ExportError(_cannot(file_format, f"its logits of {n} images differ"))


def _cannot(file_format: str, reason: str) -> str:
    first = reason.strip().splitlines()[0]
    cure = "Its forward must not depend on the number of images; or export the weights."
    return f"The model must make a program for any number of images ({file_format}): {first} {cure}"


def _card(
    sweep: Sweep, picked: Pick, images: Dataset, file_format: str, name: str
) -> dict[str, Any]:
    point, request = picked.point, read_json(sweep.folder / REQUEST)
    config = from_dict(point.config, TrainConfig)
    loading = [line.format(name=name) for line in LOADING[file_format]]
    return {
        "load": [*loading, CALL],
        "file": {"name": name, "format": file_format},
        "input": {
            "shape": list(images.shape),
            "range": [0, 1],
            "dtype": "float32",
            "meaning": "images (n, channels, height, width), any n; not normalised",
        },
        "output": {"classes": images.n_classes, "meaning": "logits (n, classes)"},
        "reason": picked.reason,
        "trial": point.trial,
        "mixing_ratio": point.mixing_ratio,
        "experts": [expert.name for expert in config.experts],
        "objectives": list(sweep.front.objectives),
        "validation": _validation(point),
        "test": _verified(sweep.folder, point.name),
        "attacks": {
            named.name: {"type": type(named.attack).__name__, **to_dict(named.attack)}
            for named in config.evaluation.attacks
        },
        "config": dict(point.config),
        "sweep": {
            "folder": str(sweep.folder.absolute()),
            "study": request["study"],
            "space": sweep.config.space,
            "custom_data": request["custom"]["data"] is not None,
            "custom_model": request["custom"]["model"],
        },
        "versions": request.get("environment", {}),
    }


def _validation(point: FrontPoint) -> dict[str, Any]:
    measured = {
        name: {"accuracy": accuracy, "interval": list(point.interval(name))}
        for name, accuracy in point.accuracies.items()
    }
    return {"n_images": point.n_images, **measured}


def _verified(folder: Path, name: str) -> dict[str, Any] | None:
    """What `verify` measured of a point on test images; None if it was not verified."""
    if not (folder / VERIFIED).is_file():
        return None
    rows: list[Mapping[str, Any]] = read_json(folder / VERIFIED)["points"]
    row = next((row for row in rows if row["name"] == name), None)
    if row is None:
        return None
    measured = {
        name: {"accuracy": accuracy, "interval": row["test_interval"][name]}
        for name, accuracy in row["test"].items()
    }
    return {
        "n_images": row["n_test_images"],
        **measured,
        "suites": {
            name: {
                key: suite[key] for key in ("suite", "accuracy_after", "findings") if key in suite
            }
            for name, suite in row["attacks"].items()
        },
    }
