"""The options that describe one training run, and the TrainConfig that they make."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from generalist_core.codec import load_config, replace_at
from generalist_core.config import DataConfig, ModelConfig, TrainConfig
from generalist_core.presets import PRESETS
from generalist_core.validation import InvalidConfigError, require


def add_config(parser: argparse.ArgumentParser) -> None:
    """Options that make a TrainConfig, from a file or a preset and what is set on top."""
    group = parser.add_argument_group("configuration")
    add = group.add_argument
    add("--out", type=Path, required=True, metavar="FOLDER", help="a new or empty folder")
    add("--config", type=Path, metavar="FILE", help="start from this JSON instead of a preset")
    add("--preset", choices=PRESETS, help="short (default), paper or official")
    add(
        "--data",
        metavar="NAME",
        help="digits, mnist, fashion-mnist, cifar10, cifar100, svhn, or a folder of images",
    )
    add("--data-root", metavar="FOLDER", help="where the data lie; default data")
    add("--download", action="store_true", help="fetch the data if they are not there")
    add("--n-train", type=int, metavar="N", help="use so many training images")
    add("--n-validation", type=int, metavar="N", help="hold out so many for validation")
    add("--image-size", type=int, metavar="N", help="resize images to N x N")
    add(
        "--model",
        metavar="NAME",
        help="convnet, resnet18, preactresnet18, wrn-28-10, wrn-32-10, torchvision:NAME, "
        "or FILE.py:FUNCTION (runs that file)",
    )
    add("--width", type=int, metavar="N", help="width of a built-in model")
    add("--epochs", type=int, metavar="N", help="epochs a trial")
    add(
        "--epsilon",
        type=float,
        metavar="E",
        help="radius of the preset's attacks, images in [0, 1]",
    )
    add("--batch-size", type=int, metavar="N")
    add("--seed", type=int, metavar="N", help="seed of weights, data order and noise")
    add("--precision", choices=("float32", "float64", "bfloat16"))
    add("--device", metavar="NAME", help="auto (default), cpu or cuda[:N]")
    add(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="fields",
        help="set any field, such as experts.natural.optimizer.lr=0.05 (VALUE is JSON)",
    )


def build_config(options: argparse.Namespace) -> TrainConfig:
    """The TrainConfig that the options describe."""
    if options.config is None:
        config, paths = _from_preset(options), _PATHS
    else:
        for option in ("preset", "epsilon"):
            given = getattr(options, option) is not None
            cure = "Use --set on top of the file."
            require(not given, f"--config without --{option}", f"--{option}", cure)
        config, paths = load_config(options.config), _FRAME | _PATHS
    for option, path in paths.items():
        if (value := getattr(options, option)) not in (None, False):
            config = replace_at(config, path, value)
    for field in options.fields:
        path, equals, value = field.partition("=")
        if not equals:
            raise InvalidConfigError(f"`--set` must be PATH=VALUE, but got {field!r}.")
        config = replace_at(config, path, _parse_value(value))
    return config


_FRAME = {
    "data": "data.name",
    "model": "model.name",
    "width": "model.width",
    "epochs": "epochs",
}
_PATHS = {
    "data_root": "data.root",
    "download": "data.download",
    "n_train": "data.n_train",
    "n_validation": "data.n_validation",
    "image_size": "data.image_size",
    "batch_size": "batch_size",
    "seed": "seed",
    "precision": "precision",
    "device": "device",
}


def _from_preset(options: argparse.Namespace) -> TrainConfig:
    """A preset in the frame of data, model, epochs and radius that the options give."""
    preset = PRESETS[options.preset or "short"]
    frame: dict[str, Any] = {}
    default = preset()
    if options.data is not None and options.data != default.data.name:
        frame["data"] = DataConfig(name=options.data, **AUGMENTATION.get(options.data, {}))
    if options.model is not None or options.width is not None:
        frame["model"] = ModelConfig(name=options.model or default.model.name, width=options.width)
    for name in ("epochs", "epsilon"):
        if getattr(options, name) is not None:
            frame[name] = getattr(options, name)
    return preset(**frame)


AUGMENTATION: dict[str, dict[str, Any]] = {
    "cifar10": {"crop_padding": 4, "flip": True, "n_validation": 1000},
    "cifar100": {"crop_padding": 4, "flip": True, "n_validation": 1000},
    "svhn": {"crop_padding": 4, "n_validation": 1000},
    "mnist": {"n_validation": 1000},
    "fashion-mnist": {"n_validation": 1000},
}
"""How training images of each data set are usually augmented."""


def _parse_value(text: str) -> Any:
    """JSON where it is JSON, else the text itself: `0.05`, `[0, 1]`, `AdamW`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
