"""Splits and batches, whose order and augmentation depend only on (seed, epoch)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from generalist_core.config import DataConfig
from generalist_core.data.splits import (
    Dataset,
    Split,
    as_floats,
    augment,
    n_batches,
    random_crop,
    train_batches,
)
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import random_images, same_bits, tiny_split

PLAIN = DataConfig()
AUGMENTED = DataConfig(crop_padding=1, flip=True)


def epoch(
    split: Split, config: DataConfig = PLAIN, *, seed: int = 0, epoch: int = 0, size: int = 4
) -> list[tuple[Tensor, Tensor]]:
    dtype = torch.float32
    return list(train_batches(split, config, batch_size=size, seed=seed, epoch=epoch, dtype=dtype))


def numbered(n: int) -> Split:
    """Images whose value is their number, as bytes."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 2, 2)
    return Split(images=images, labels=torch.arange(n))


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [(10, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (5, 5, [5]), (2, 1, [1, 1])],
)
def test_batches_are_equal_and_drop_the_rest(n: int, size: int, sizes: list[int]) -> None:
    batches = epoch(numbered(n), size=size)
    assert [len(y) for _, y in batches] == sizes
    assert n_batches(numbered(n), size) == len(sizes)


def test_an_epoch_shows_each_image_once_with_its_label() -> None:
    batches = epoch(numbered(40))
    labels = torch.cat([y for _, y in batches])
    images = torch.cat([x for x, _ in batches])
    assert sorted(labels.tolist()) == list(range(40))
    assert labels.tolist() != list(range(40))
    torch.testing.assert_close(images[:, 0, 0, 0], labels / 255)


def test_images_left_over_are_others_each_epoch() -> None:
    seen = [set(torch.cat([y for _, y in epoch(numbered(10), epoch=e)]).tolist()) for e in range(6)]
    assert all(len(labels) == 8 for labels in seen)
    assert set.union(*seen) == set(range(10))


@pytest.mark.parametrize("config", [PLAIN, AUGMENTED], ids=["plain", "augmented"])
def test_order_and_augmentation_depend_on_seed_and_epoch_alone(config: DataConfig) -> None:
    split = tiny_split(20)
    first = epoch(split, config, seed=3, epoch=5)
    torch.rand(10)
    epoch(split, config, seed=3, epoch=4)
    assert same_bits(epoch(split, config, seed=3, epoch=5), first)
    assert not same_bits(epoch(split, config, seed=3, epoch=6), first)
    assert not same_bits(epoch(split, config, seed=4, epoch=5), first)


def test_batches_leave_the_global_random_state() -> None:
    state = torch.get_rng_state()
    epoch(tiny_split(20), AUGMENTED)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_and_floats_are_the_same_images(dtype: torch.dtype) -> None:
    as_bytes = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    floats = as_floats(as_bytes, dtype)
    assert floats.dtype == dtype
    assert floats.min() == 0
    assert floats.max() == 1
    assert torch.equal((floats * 255).round().byte(), as_bytes)
    assert torch.equal(as_floats(floats, dtype), floats)


def naive_crop(x: Tensor, padding: int, rows: Tensor, columns: Tensor) -> Tensor:
    """The crop computed pixel by pixel; what lies outside the image is 0."""
    n, _, h, w = x.shape
    cropped = torch.zeros_like(x)
    for i in range(n):
        for r in range(h):
            for c in range(w):
                row, column = r + int(rows[i]) - padding, c + int(columns[i]) - padding
                if 0 <= row < h and 0 <= column < w:
                    cropped[i, :, r, c] = x[i, :, row, column]
    return cropped


@pytest.mark.parametrize("padding", [1, 2, 5])
def test_crops_are_shifts_filled_with_zeros(padding: int) -> None:
    x = random_images(6, 2, 4, 3)
    cropped = random_crop(x, padding, torch.Generator().manual_seed(0))
    shifts = torch.randint(2 * padding + 1, (2, 6), generator=torch.Generator().manual_seed(0))
    assert torch.equal(cropped, naive_crop(x, padding, *shifts))


def test_every_shift_occurs() -> None:
    x = torch.zeros(900, 1, 3, 3)
    x[:, :, 1, 1] = 1
    cropped = random_crop(x, 1, torch.Generator().manual_seed(0))
    assert torch.equal(cropped.flatten(1).sum(1), torch.ones(900))
    frequencies = cropped.flatten(1).mean(0)
    assert ((frequencies - 1 / 9).abs() < 4 * (8 / 81 / 900) ** 0.5).all()


def test_flips_mirror_half_of_the_images() -> None:
    x = random_images(400, 1, 2, 3)
    flipped = augment(x, DataConfig(flip=True), torch.Generator().manual_seed(0))
    is_mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    assert torch.equal(flipped[~is_mirrored], x[~is_mirrored])
    assert is_mirrored.double().mean().item() == pytest.approx(0.5, abs=0.1)


def test_without_augmentation_images_stay() -> None:
    x = random_images(4, 1, 2, 3)
    assert torch.equal(augment(x, PLAIN, torch.Generator()), x)


def test_a_split_is_read_in_order() -> None:
    batches = list(numbered(5).batches(2, torch.float64))
    assert [y.tolist() for _, y in batches] == [[0, 1], [2, 3], [4]]
    assert all(x.dtype == torch.float64 for x, _ in batches)
    taken = numbered(5).take(torch.tensor([3, 1]))
    assert taken.labels.tolist() == [3, 1]
    assert taken.images[:, 0, 0, 0].tolist() == [3, 1]


IMAGES, LABELS = torch.zeros(2, 1, 3, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": IMAGES[0]}, r"\(n, c, h, w\).*\(1, 3, 3\)"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"n > 0.*\(0, 1, 3, 3\)"),
        ({"labels": LABELS[:1]}, r"one label per image.*\(1,\) for 2 images"),
        ({"labels": LABELS.float()}, r"`labels` must be integers.*torch\.float32"),
        ({"labels": LABELS - 1}, r"min\(labels\) >= 0.*-1"),
        ({"images": IMAGES + 2}, r"must be in \[0, 1\].*values in \[2, 2\].*Scale"),
        ({"images": IMAGES - 0.5}, r"must be in \[0, 1\].*values in \[-0\.5, -0\.5\]"),
        ({"images": IMAGES * torch.nan}, r"must be in \[0, 1\].*nan"),
        ({"images": IMAGES.int()}, r"floats or bytes.*torch\.int32"),
    ],
)
def test_a_split_checks_its_images(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        Split(**{"images": IMAGES, "labels": LABELS, **fields})


def test_the_number_of_classes_does_not_come_from_test_images() -> None:
    train, validation = tiny_split(6, n_classes=2), tiny_split(6, n_classes=3)
    data = Dataset(name="x", train=train, validation=validation, test=tiny_split(6, n_classes=4))
    assert data.n_classes == 3
    assert data.shape == (1, 4, 4)
