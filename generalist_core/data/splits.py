"""Images as tensors on the device, in epochs whose order and augmentation follow from the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from generalist_core.config import DataConfig
from generalist_core.randomness import generator
from generalist_core.validation import require

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Labelled images: `images` (n, c, h, w), floats in [0, 1] or bytes, and `labels` (n,)."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        require(len(shape) == 4 and shape[0] > 0, "images of shape (n, c, h, w), n > 0", f"{shape}")
        labels = tuple(self.labels.shape)
        require(labels == shape[:1], "one label an image", f"{labels} for {shape[0]} images")
        require(not self.labels.is_floating_point(), "labels are integers", f"{self.labels.dtype}")
        require(int(self.labels.min()) >= 0, "labels >= 0", f"{int(self.labels.min())}")
        if self.images.is_floating_point():
            low, high = float(self.images.min()), float(self.images.max())
            cure = "Scale the images; normalisation belongs into the model (ModelConfig.mean, std)."
            require(
                low >= 0 and high <= 1, "images in [0, 1]", f"values in [{low:g}, {high:g}]", cure
            )
        else:
            dtype = self.images.dtype
            require(dtype == torch.uint8, "images are floats or bytes", f"{dtype}")

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
    """The three splits. A search sees `train` and `validation`; `test` is for the end."""

    name: str
    train: Split
    validation: Split
    test: Split | None = None

    @property
    def n_classes(self) -> int:
        """One more than the largest label to train on or to select by; test labels have no say."""
        return 1 + max(int(split.labels.max()) for split in (self.train, self.validation))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one image."""
        c, h, w = self.train.images.shape[1:]
        return (c, h, w)


def train_batches(
    split: Split, config: DataConfig, *, batch_size: int, seed: int, epoch: int, dtype: torch.dtype
) -> Iterator[Batch]:
    """One epoch in an order and with augmentation that depend only on (seed, epoch).

    Batches have equal size: the up to `batch_size - 1` images left over at the end of an epoch's
    order wait for another epoch, as BatchNorm has no good statistics for them.
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
    """Random crops out of the zero-padded image and horizontal flips, drawn for each image."""
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
    """Images in [0, 1] of type `dtype`; bytes are divided by 255."""
    return images.to(dtype) if images.is_floating_point() else images.to(dtype) / 255
