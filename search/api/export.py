"""Export a model of a sweep for use elsewhere: weights or a whole program, and its card.

    FILE        a state dict, a TorchScript program, or a program of `torch.export`
    FILE.json   the card: how to load the model, its accuracies, how they were measured, its origin

The card is written last: if it exists, the model is complete.
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
from generalist_core.fingerprints import content_digest, file_digest
from generalist_core.models.build import ModelFactory, build_model
from generalist_core.models.state import copied, load_state, state_of
from generalist_core.training.averaging import load_weights
from generalist_core.training.evaluator import correct
from generalist_core.validation import InvalidConfigError, require_one_of
from search.errors import SweepFolderError
from search.files import (
    load_tensors,
    read_if_intact,
    read_json,
    read_sealed_json,
    sealed,
    write_bytes,
    write_sealed_json,
)
from search.front.pick import Pick
from search.front.points import FrontPoint
from search.running.mixtures import empty_model, point_state
from search.running.trial import cached_dataset
from search.study.folder import Sweep, require_custom_parts

LOADING = {
    "weights": ("from search import load_export", "model = load_export({name!r})"),
    "torchscript": ("import torch", "model = torch.jit.load({name!r})"),
    "exported": ("import torch", "model = torch.export.load({name!r}).module()"),
}
"""The formats, each with two lines that load it; a third line, `CALL`, calls the model."""

CALL = "logits = model(images)"

N_TRACED = 2
"""The images with which a program is traced; with one image, the program accepts only one."""


def export(
    sweep: Sweep,
    spec: str,
    path: str | Path,
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
        path: the new file; the card is written beside it.
        file_format: `weights`, a state dict; `torchscript` or `exported`, whole programs for any
            batch size that need none of this code.
        data: the images, if the sweep began with custom ones.
        model: the factory of models, if the sweep began with a custom one.
        force: overwrite existing files.

    Raises:
        InvalidConfigError: no such point or format, or a custom part of the sweep is missing, or
            the natural accuracy of the model is not the one that the sweep recorded.
        SweepFolderError: the file exists, or the weights of the trial do not.
        ExportError: the model cannot be exported as a program.
    """
    require_one_of("format", file_format, LOADING)
    path = Path(path)
    card_path = path.parent / f"{path.name}.json"
    _check_target(path, card_path, force=force)
    picked = sweep.pick(spec)
    data, model = data or sweep.custom.data, model or sweep.custom.model
    require_custom_parts(sweep.folder, data, model)
    config = from_dict(picked.point.config, TrainConfig)
    images = data or cached_dataset(config.data)
    network = empty_model(config, images, model)
    load_weights(network, point_state(sweep.files, picked.point.trial, picked.point.mixing_ratio))
    _require_as_recorded(network, images, picked.point, config)
    content = _serialised(network, images.shape, file_format)
    card = _card(sweep, picked, images, file_format, path.name)
    card["file"] |= {
        "sha256": content_digest(content),
        "torch": str(torch.__version__),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    write_bytes(path, content)
    write_sealed_json(card_path, card)
    return card


def load_export(path: str | Path, *, model: ModelFactory | None = None) -> nn.Module:
    """The model that `export` wrote as weights, in eval mode; the card names its architecture.

    Raises:
        InvalidConfigError: the file has another format, or the custom `model` is missing.
        SweepFolderError: the file or its card is missing or damaged.
    """
    path = Path(path)
    card = read_sealed_json(path.with_name(f"{path.name}.json"))
    file_format = card["file"]["format"]
    if file_format != "weights":
        raise InvalidConfigError(
            f"{path} must hold weights, but its format is {file_format}. Load it with: "
            f"{'; '.join(card['load'])}"
        )
    if model is None and card["sweep"]["custom_model"]:
        raise InvalidConfigError(
            "`model` must be the custom model of the sweep, but is missing. Call "
            "load_export(path, model=...) with it."
        )
    state = load_tensors(path)
    if file_digest(path) != card["file"]["sha256"]:
        raise SweepFolderError(
            f"{path} must be the file of its card, but the digest does not match. Export it again."
        )
    config, shape = from_dict(card["config"], TrainConfig), tuple(card["input"]["shape"])
    classes = card["output"]["classes"]
    network = copied((model or _factory(config))(classes, shape))
    load_state(network, state)
    return network.eval()


def _require_as_recorded(
    network: nn.Module, images: Dataset, point: FrontPoint, config: TrainConfig
) -> None:
    """Judge the natural accuracy on the validation images again, and compare it with the sweep's.

    Another device or a folded form may turn an image that lies on the border of two classes. The
    images that a randomised model judges in two ways count as such, too.
    """
    split = images.validation.take(torch.arange(len(images.validation))[: point.n_images])
    judged = [correct(network, split, config.evaluation.batch_size, torch.float32)]
    recorded, n_images = point.accuracies["natural"], len(split)
    difference = abs(judged[0].sum().item() - recorded * n_images)
    n_borderline = 1 + n_images // 1000
    if difference > n_borderline:
        judged.append(correct(network, split, config.evaluation.batch_size, torch.float32))
        n_borderline += int((judged[0] != judged[1]).sum())
    if difference > n_borderline:
        found = judged[0].double().mean().item()
        raise InvalidConfigError(
            f"The model of {point.name} must have the natural accuracy that the sweep recorded, "
            f"{100 * recorded:.1f} %, but got {100 * found:.1f} % on the same {n_images} images. "
            "Its code, its files or the images have changed: put them back as they were."
        )


class ExportError(InvalidConfigError):
    """A model that cannot be exported as a program."""


def _factory(config: TrainConfig) -> ModelFactory:
    return lambda n_classes, shape: build_model(config.model, n_classes, shape, seed=config.seed)


def _check_target(path: Path, card: Path, *, force: bool) -> None:
    if path.is_dir():
        raise SweepFolderError(f"{path} must be a file, but is a folder. Give another --to.")
    if not path.parent.is_dir():
        raise SweepFolderError(f"{path.parent} must be a folder, but is not. Make it first.")
    existing = [str(file) for file in (path, card) if file.exists()]
    if existing and not force:
        raise SweepFolderError(
            f"The files to write must be new, but {' and '.join(existing)} exist. Give another "
            "--to, or --force."
        )


def _serialised(network: nn.Module, shape: tuple[int, int, int], file_format: str) -> bytes:
    if file_format == "weights":
        return sealed(state_of(network))
    buffer = io.BytesIO()
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
        # torch recommends torch.export, the other format; programs without Python need this one
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
    """Check that a program agrees with its model on numbers of images other than `N_TRACED`."""
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
    return (
        f"The model must become a program for any number of images ({file_format}), but: {first} "
        "Its forward must not depend on the number of images. Or export the weights."
    )


def _card(
    sweep: Sweep, picked: Pick, images: Dataset, file_format: str, name: str
) -> dict[str, Any]:
    point, request = picked.point, read_json(sweep.files.request)
    config = from_dict(point.config, TrainConfig)
    loading = [line.format(name=name) for line in LOADING[file_format]]
    return {
        "load": [*loading, CALL],
        "file": {"name": name, "format": file_format},
        "input": {
            "shape": list(images.shape),
            "range": [0, 1],
            "dtype": "float32",
            "meaning": "images (n, channels, height, width) for any n, not normalised",
        },
        "output": {"classes": images.n_classes, "meaning": "logits (n, classes)"},
        "reason": picked.reason,
        "trial": point.trial,
        "mixing_ratio": point.mixing_ratio,
        "experts": [expert.name for expert in config.experts],
        "objectives": list(sweep.front.objectives),
        "validation": _validation(point),
        "test": _verified(sweep.files.verified, point.name),
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


def _verified(path: Path, name: str) -> dict[str, Any] | None:
    """The results of `verify` for a point on test images; None if it was not verified."""
    rows: list[Mapping[str, Any]] = read_if_intact(path).get("points", [])
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
                key: suite[key] for key in ("suite", "accuracy_after", "indicators") if key in suite
            }
            for name, suite in row["attacks"].items()
        },
    }
