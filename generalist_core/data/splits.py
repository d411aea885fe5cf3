"""Images as tensors on the device, in epochs whose order and augmentation depend on the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from generalist_core.config import DataConfig
from generalist_core.randomness import generator
from generalist_core.validation import InvalidConfigError, require

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Labelled images: `images` (n, c, h, w), floats in [0, 1] or bytes, and `labels` (n,)."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) != 4 or shape[0] == 0:
            raise InvalidConfigError(
                f"`images` must have shape (n, c, h, w) with n > 0, but got {shape}."
            )
        if tuple(self.labels.shape) != shape[:1]:
            raise InvalidConfigError(
                "There must be one label per image, but got labels of shape "
                f"{tuple(self.labels.shape)} for {shape[0]} images."
            )
        if self.labels.is_floating_point():
            raise InvalidConfigError(f"`labels` must be integers, but got {self.labels.dtype}.")
        lowest = int(self.labels.min())
        require(lowest >= 0, "min(labels) >= 0", f"{lowest}")
        if self.images.is_floating_point():
            _require_in_unit_range(self.images)
        elif self.images.dtype != torch.uint8:
            raise InvalidConfigError(
                f"`images` must be floats or bytes, but got {self.images.dtype}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same split on `device`."""
        return Split(images=self.images.to(device), labels=self.labels.to(device).long())

    def take(self, index: Tensor) -> Split:
        """The images and labels at `index`, (m,)."""
        return Split(images=self.images[index], labels=self.labels[index])

    def batches(self, batch_size: int, dtype: torch.dtype) -> Iterator[Batch]:
        """All images in order, as floats in [0, 1]."""
        for images, labels in zip(
            torch.split(self.images, batch_size), torch.split(self.labels, batch_size), strict=True
        ):
            yield as_floats(images, dtype), labels


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three splits: a search sees `train` and `validation`, and `test` is kept for its end."""

    name: str
    train: Split
    validation: Split
    test: Split | None = None

    @property
    def n_classes(self) -> int:
        """One more than the largest label of `train` and `validation`; test labels do not count."""
        return 1 + max(int(split.labels.max()) for split in (self.train, self.validation))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one image."""
        c, h, w = self.train.images.shape[1:]
        return (c, h, w)


def _require_in_unit_range(images: Tensor) -> None:
    """Check that images lie in [0, 1]."""
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise InvalidConfigError(
            f"`images` must be in [0, 1], but got values in [{low:g}, {high:g}]. Scale the images; "
            "normalisation belongs in the model (ModelConfig.mean, std)."
        )


def train_batches(
    split: Split, config: DataConfig, *, batch_size: int, seed: int, epoch: int, dtype: torch.dtype
) -> Iterator[Batch]:
    """One epoch, with an order and an augmentation that depend only on (seed, epoch).

    Batches have equal size: up to `batch_size - 1` images at the end of an epoch's order are left
    out, because BatchNorm has no good statistics for a small batch.
    """
    device = split.images.device
    rng = generator(device, seed, "data", epoch)
    order = torch.randperm(len(split), generator=rng, device=device)
    size = min(batch_size, len(split))
    for index in torch.split(order[: len(order) // size * size], size):
        x = as_floats(split.images[index], dtype)
        yield augment(x, config, rng), split.labels[index]


def n_batches(split: Split, batch_size: int) -> int:
    """The number of batches in an epoch of `train_batches`."""
    return len(split) // min(batch_size, len(split))


def augment(x: Tensor, config: DataConfig, rng: torch.Generator) -> Tensor:
    """Random crops of the zero-padded images and horizontal flips, drawn for each image."""
    if config.crop_padding:
        x = random_crop(x, config.crop_padding, rng)
    if config.flip:
        flipped = torch.rand(len(x), generator=rng, device=x.device) < 0.5
        x = torch.where(flipped.view(-1, 1, 1, 1), x.flip(3), x)
    return x


def random_crop(x: Tensor, padding: int, rng: torch.Generator) -> Tensor:
    """Shift each image by up to `padding` pixels in both directions, filling with zeros."""
    n, _, h, w = x.shape
    padded = F.pad(x, [padding] * 4)
    shifts = torch.randint(2 * padding + 1, (2, n, 1), generator=rng, device=x.device)
    rows = shifts[0] + torch.arange(h, device=x.device)
    columns = shifts[1] + torch.arange(w, device=x.device)
    image = torch.arange(n, device=x.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def as_floats(images: Tensor, dtype: torch.dtype) -> Tensor:
    """The images in [0, 1] as `dtype`; bytes are divided by 255."""
    return images.to(dtype) if images.is_floating_point() else images.to(dtype) / 255
