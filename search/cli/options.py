"""The options that describe one training run, and the TrainConfig that they make."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from generalist_core.config import NFGSM, PRECISIONS, DataConfig, ModelConfig, TrainConfig
from generalist_core.config.codec import load_config, replace_at
from generalist_core.config.presets import PRESETS
from generalist_core.config.suite import KNOWN, SuiteConfig
from generalist_core.validation import InvalidConfigError, require


def add_config(parser: argparse.ArgumentParser) -> None:
    """Options of a training: its folder, and a TrainConfig."""
    add = parser.add_argument_group("training").add_argument
    add("--out", type=Path, required=True, metavar="FOLDER", help="a new or empty folder")
    add("--n-train", type=int, metavar="N", help="use so many training images")
    add("--epochs", type=int, metavar="N", help="epochs a trial")
    add("--batch-size", type=int, metavar="N", help="images a step")
    add("--precision", choices=PRECISIONS, help="default float32")
    add(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="fields",
        help="set any field, such as experts.natural.optimizer.lr=0.05 (VALUE is JSON)",
    )
    add_frame(parser)


def add_frame(parser: argparse.ArgumentParser) -> None:
    """Options that say which data, model and attack radius; from a file or a preset."""
    add = parser.add_argument_group("data and model").add_argument
    add("--config", type=Path, metavar="FILE", help="start from this JSON instead of a preset")
    add("--preset", choices=PRESETS, help="short (default), paper or official")
    add(
        "--data",
        metavar="NAME",
        help="digits, mnist, fashion-mnist, cifar10, cifar100, svhn, or a folder of images",
    )
    add("--data-root", metavar="FOLDER", help="where the data lie; default data")
    add("--download", action="store_true", help="fetch the data if they are not there")
    add("--n-validation", type=int, metavar="N", help="hold out so many for validation")
    add("--image-size", type=int, metavar="N", help="resize images to N x N")
    add(
        "--model",
        metavar="NAME",
        help="convnet, resnet18, preactresnet18, wrn-28-10, wrn-32-10, torchvision:NAME, "
        "or FILE.py:FUNCTION (runs that file)",
    )
    add("--width", type=int, metavar="N", help="width of a built-in model")
    add("--epsilon", type=float, metavar="E", help="radius of all attacks, images in [0, 1]")
    add("--seed", type=int, metavar="N", help="seed of weights, data order and noise")
    add("--device", metavar="NAME", help="auto (default), cpu or cuda[:N]")


def add_suite(parser: argparse.ArgumentParser, *, attacks: str) -> None:
    """Options of an attack suite."""
    add = parser.add_argument_group("attacks").add_argument
    add("--attacks", default=attacks, metavar="A,B", help=f"default {attacks}; known: {KNOWN}")
    add("--n-images", type=int, metavar="N", help="the first N images; default all")
    add("--attack-batch-size", type=int, default=250, metavar="N", help="default 250")
    add("--attack-seed", type=int, default=0, metavar="N", help="default 0")


def build_suite(options: argparse.Namespace, config: TrainConfig) -> SuiteConfig:
    """The suite that the options describe, in the ball of the configuration's first attack.

    Raises:
        InvalidConfigError: an attack that there is not.
    """
    attack = config.evaluation.attacks[0].attack
    assert not isinstance(attack, NFGSM)
    return SuiteConfig(
        norm=options.norm or attack.norm,
        epsilon=attack.epsilon,
        attacks=tuple(options.attacks.split(",")),
        n_images=options.n_images,
        batch_size=options.attack_batch_size,
        seed=options.attack_seed,
    )


def build_config(options: argparse.Namespace) -> TrainConfig:
    """The TrainConfig that the options describe."""
    if options.config is None:
        config, paths = _from_preset(options), _PATHS
    else:
        alone = options.preset is None
        require(alone, "--config without --preset", f"--preset {options.preset}")
        config, paths = load_config(options.config), _FRAME | _PATHS
        if options.epsilon is not None:
            config = _with_epsilon(config, options.epsilon)
    for option, path in paths.items():
        value = getattr(options, option, None)
        if value is not None and value is not False:
            config = replace_at(config, path, value)
    for field in getattr(options, "fields", []):
        path, equals, value = field.partition("=")
        if not equals:
            raise InvalidConfigError(f"`--set` must be PATH=VALUE, but got {field!r}.")
        config = replace_at(config, path, _parse_value(value))
    return with_whole_paths(config)


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
        if getattr(options, name, None) is not None:
            frame[name] = getattr(options, name)
    return preset(**frame)


def with_whole_paths(config: TrainConfig) -> TrainConfig:
    """The configuration with absolute paths: workers, and later commands, may run elsewhere."""
    from generalist_core.data.datasets import DATASETS
    from generalist_core.user_code import pinned

    config = replace_at(config, "data.root", str(Path(config.data.root).absolute()))
    if config.data.name not in DATASETS and Path(config.data.name).is_dir():
        config = replace_at(config, "data.name", str(Path(config.data.name).absolute()))
    place, colon, function = config.model.name.rpartition(":")
    if place.endswith(".py"):
        config = replace_at(config, "model.name", f"{Path(place).absolute()}{colon}{function}")
    return pinned(config)


def _with_epsilon(config: TrainConfig, epsilon: float) -> TrainConfig:
    """The configuration with this radius for every attack."""
    attacked = [f"experts.{e.name}" for e in config.experts if e.attack is not None]
    judged = [f"evaluation.attacks.{named.name}" for named in config.evaluation.attacks]
    for place in attacked + judged:
        config = replace_at(config, f"{place}.attack.epsilon", epsilon)
    return config


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
