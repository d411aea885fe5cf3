"""Data sets by name (scikit-learn's digits, torchvision's, folders of images) and their splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from generalist_core.config import DataConfig
from generalist_core.data.splits import Dataset, Split
from generalist_core.randomness import derive_seed
from generalist_core.validation import InvalidConfigError, did_you_mean

DATASETS = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn")


def load_dataset(config: DataConfig) -> Dataset:
    """The data set that `config` names, on the CPU.

    Raises:
        InvalidConfigError: the name is unknown, or there are no data in `root`, or too few images.
    """
    return make_dataset(config, *(_digits() if config.name == "digits" else _on_disk(config)))


def make_dataset(config: DataConfig, train: Split, test: Split | None) -> Dataset:
    """A named data set, whose validation images are split off from `train`, stratified by label.

    Raises:
        InvalidConfigError: there are too few images, or the splits do not match.
    """
    if config.image_size is not None:
        from generalist_core.data.image_files import resized

        train = resized(train, config.image_size)
        test = None if test is None else resized(test, config.image_size)
    n_validation = config.n_validation or _default_n_validation(train)
    kept, held_out = _stratified(train, n_validation, config.split_seed, "--n-validation")
    if config.n_train is not None and config.n_train > len(kept):
        raise InvalidConfigError(
            "`n_train` must be at most the number of images left for training, but got "
            f"n_train={config.n_train} and {len(kept)} images. Use a smaller --n-train or "
            "--n-validation."
        )
    if config.n_train is not None and config.n_train < len(kept):
        _, kept = _stratified(kept, config.n_train, config.split_seed, "--n-train")
    return Dataset(name=config.name, train=kept, validation=held_out, test=test)


def _default_n_validation(train: Split) -> int:
    """500, but at most 40 % of the images, and at least one for each class."""
    return max(min(500, len(train) * 2 // 5), len(torch.unique(train.labels)))


def _stratified(split: Split, n: int, seed: int, option: str) -> tuple[Split, Split]:
    """The rest, and `n` images with the label frequencies of the whole, both in random order.

    `option` is the one that sets `n`.
    """
    from sklearn.model_selection import train_test_split

    classes, counts = torch.unique(split.labels, return_counts=True)
    n_classes = len(counts)
    if int(counts.min()) < 2:
        raise InvalidConfigError(
            f"There must be two images of each class, but got {int(counts.min())} of class "
            f"{int(classes[counts.argmin()])}."
        )
    if not n_classes <= n <= len(split) - n_classes:
        raise InvalidConfigError(
            "Each split must have at least one image per class, but got "
            f"{n} of {len(split)} images for {n_classes} classes. Use {option} with a number from "
            f"{n_classes} to {len(split) - n_classes}."
        )
    rest, chosen = train_test_split(
        np.arange(len(split)),
        test_size=n,
        stratify=split.labels.cpu().numpy(),
        random_state=derive_seed(seed, "split") % 2**32,
    )
    return split.take(torch.from_numpy(rest)), split.take(torch.from_numpy(chosen))


def _digits() -> tuple[Split, Split]:
    """The 1,797 digits of scikit-learn, 8x8; every fifth is a test image."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(digits.target)
    is_test = torch.arange(len(labels)) % 5 == 4
    whole = Split(images=images, labels=labels)
    return whole.take((~is_test).nonzero()[:, 0]), whole.take(is_test.nonzero()[:, 0])


def _on_disk(config: DataConfig) -> tuple[Split, Split]:
    """A published data set, or a folder of images."""
    from generalist_core.data.image_files import image_folder, published

    if config.name in DATASETS:
        return published(config, is_train=True), published(config, is_train=False)
    if Path(config.name).is_dir():
        return image_folder(config, "train"), image_folder(config, "test")
    raise InvalidConfigError(
        f"`data` must be one of {', '.join(DATASETS)}, or a folder with train/ and test/, but got "
        f"{config.name!r}.{did_you_mean(config.name, DATASETS)}"
    )
