"""Images as tensors on the device, in epochs whose order and augmentation depend on the seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generalist_core.config import DataConfig
from generalist_core.randomness import generator
from generalist_core.validation import InvalidConfigError, require

Batch = tuple[Tensor, Tensor]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Labelled images: `images` (n, c, h, w), floats in [0, 1] or bytes, and `labels` (n,).

    Both are tensors or numpy arrays. They are kept as contiguous tensors without gradients, the
    labels as 64-bit integers.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = _as_tensor("images", self.images), _as_tensor("labels", self.labels)
        _require_shapes(tuple(images.shape), tuple(labels.shape))
        if labels.is_floating_point() or labels.is_complex():
            raise InvalidConfigError(
                f"`labels` must be integers, but got {labels.dtype}. Use labels.long() if these "
                "are numbers of classes."
            )
        lowest = int(labels.long().min())
        require(lowest >= 0, "min(labels) >= 0", f"{lowest}")
        if images.dtype in FLOATS:
            _require_in_unit_range(images)
        elif images.dtype != torch.uint8:
            raise InvalidConfigError(
                f"`images` must be floats or bytes, but got {images.dtype}. Convert them to "
                "floats in [0, 1], or values from 0 to 255 to torch.uint8."
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.long())

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same split on `device`."""
        return Split(images=self.images.to(device), labels=self.labels.to(device))

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
    """Three splits: a search sees `train` and `validation`, and `test` is kept for its end.

    Their images have one shape, `train` and `validation` have at least two classes each, `train` is
    not all but black, and no label of `test` is above those of the other two.
    """

    name: str
    train: Split
    validation: Split
    test: Split | None = None

    def __post_init__(self) -> None:
        _require_one_shape({"train": self.train, "validation": self.validation, "test": self.test})
        for name, split in (("train", self.train), ("validation", self.validation)):
            if bool((split.labels == split.labels[0]).all()):
                raise InvalidConfigError(
                    f"`{name}` must have images of at least two classes, but all labels are "
                    f"{int(split.labels[0])}. Add images of other classes to it."
                )
        n_images = len(self.train) + len(self.validation)
        if self.n_classes > n_images:
            raise InvalidConfigError(
                f"`labels` must be below {n_images}, the number of train and validation images, "
                f"but got {self.n_classes - 1}. Number the classes from 0."
            )
        brightest = float(as_floats(self.train.images.max(), torch.float64))
        if brightest <= 1 / 255:
            raise InvalidConfigError(
                "`train` must have a pixel brighter than 1/255, but the brightest is "
                f"{brightest:.3g}. Floats lie in [0, 1], and bytes are divided by 255: scale the "
                "images once."
            )
        last = 0 if self.test is None else int(self.test.labels.max())
        if last >= self.n_classes:
            raise InvalidConfigError(
                f"`test` must have labels below {self.n_classes}, the number of classes of train "
                f"and validation images, but got {last}. Number the classes alike in all splits."
            )

    @property
    def n_classes(self) -> int:
        """One more than the largest label of `train` and `validation`; test labels do not count."""
        return 1 + max(int(split.labels.max()) for split in (self.train, self.validation))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one image."""
        c, h, w = self.train.images.shape[1:]
        return (c, h, w)


def _as_tensor(name: str, value: Any) -> Tensor:
    """The values of a tensor or a numpy array as a plain contiguous tensor without gradients."""
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        try:
            # A copy, because torch refuses negative strides and other byte orders.
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))
        except TypeError as error:
            raise InvalidConfigError(
                f"`{name}` must be an array of numbers, but got {value.dtype}."
            ) from error
    if not isinstance(value, Tensor):
        raise InvalidConfigError(
            f"`{name}` must be a tensor or a numpy array, but got {type(value).__name__}. Use "
            "torch.tensor or torch.stack."
        )
    tensor = value.detach().to_dense().as_subclass(Tensor).contiguous()
    # Autograd refuses what was computed in inference mode.
    return tensor.clone() if tensor.is_inference() else tensor


def _require_shapes(images: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """Check that images have shape (n, c, h, w), channels first, and labels (n,)."""
    if len(images) != 4 or 0 in images:
        cure = " Use images[:, None] for n images of one channel." if len(images) == 3 else ""
        raise InvalidConfigError(
            f"`images` must have shape (n, c, h, w) with n, c, h, w > 0, but got {images}.{cure}"
        )
    _, c, h, w = images
    if c == h > 4 >= w or (c > 4 < h and w in (3, 4)):
        raise InvalidConfigError(
            f"`images` must have shape (n, c, h, w), but got {images}, which is (n, h, w, c). Use "
            "images.permute(0, 3, 1, 2), or images.transpose(0, 3, 1, 2) in numpy."
        )
    if labels != images[:1]:
        cure = ""
        if math.prod(labels) == images[0]:
            cure = " Use labels.flatten()."
        elif len(labels) == 2 and labels[0] == images[0]:
            cure = " Use labels.argmax(1)."
        raise InvalidConfigError(
            f"There must be one label per image, but got labels of shape {labels} for {images[0]} "
            f"images.{cure}"
        )


def _require_one_shape(splits: Mapping[str, Split | None]) -> None:
    """Check that the images of all splits have the same shape."""
    shapes = {name: tuple(s.images.shape[1:]) for name, s in splits.items() if s is not None}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"{shape} in {name}" for name, shape in shapes.items())
        raise InvalidConfigError(
            f"All splits must have images of one shape (c, h, w), but got {got}. Convert them to "
            "one number of channels, and to one size with --image-size."
        )


def _require_in_unit_range(images: Tensor) -> None:
    """Check that images lie in [0, 1]."""
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        return
    is_bad = ~images.isfinite().flatten(1).all(1)
    if is_bad.any():
        raise InvalidConfigError(
            "`images` must be in [0, 1], but got nan or infinity in "
            f"{int(is_bad.sum())} of {len(images)}, first in image {int(is_bad.nonzero()[0])}."
        )
    raise InvalidConfigError(
        f"`images` must be in [0, 1], but got values in [{low:.9g}, {high:.9g}]. Scale the images; "
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
    cropped = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()


def as_floats(images: Tensor, dtype: torch.dtype) -> Tensor:
    """The images in [0, 1] as `dtype`; bytes are divided by 255."""
    return images.to(dtype) if images.is_floating_point() else images.to(dtype) / 255
