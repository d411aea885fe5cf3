"""Splits and batches, whose order and augmentation depend only on (seed, epoch)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
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
        ({"images": IMAGES[0]}, r"\(n, c, h, w\).*\(1, 3, 3\).*images\[:, None\]"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"n, c, h, w > 0.*\(0, 1, 3, 3\)"),
        ({"images": IMAGES[..., :0]}, r"n, c, h, w > 0.*\(2, 1, 3, 0\)"),
        ({"images": torch.zeros(2, 6, 8, 3)}, r"\(2, 6, 8, 3\).*\(n, h, w, c\).*permute"),
        ({"images": torch.zeros(2, 240, 320, 4)}, r"\(2, 240, 320, 4\).*\(n, h, w, c\).*permute"),
        ({"images": torch.zeros(2, 8, 8, 3)}, r"\(2, 8, 8, 3\).*\(n, h, w, c\).*permute"),
        ({"labels": LABELS[:, None]}, r"one label per image.*\(2, 1\).*flatten"),
        ({"labels": LABELS[None]}, r"one label per image.*\(1, 2\).*flatten"),
        ({"labels": torch.eye(2)}, r"one label per image.*\(2, 2\).*argmax"),
        ({"labels": LABELS[:1]}, r"one label per image.*\(1,\) for 2 images"),
        ({"labels": LABELS.float()}, r"`labels` must be integers.*torch\.float32.*long\(\)"),
        ({"labels": LABELS.float().numpy()}, r"`labels` must be integers.*torch\.float32"),
        ({"labels": LABELS.cfloat()}, r"`labels` must be integers.*torch\.complex64"),
        ({"labels": [0, 1]}, r"`labels` must be a tensor or a numpy array.*list"),
        ({"labels": np.array(["cat", "dog"])}, r"`labels` must be an array of numbers.*<U3"),
        ({"images": np.ma.masked_array(IMAGES.numpy(), True)}, r"numpy array.*MaskedArray"),
        ({"images": [[0.5]]}, r"`images` must be a tensor or a numpy array.*list"),
        ({"labels": LABELS - 1}, r"min\(labels\) >= 0.*-1"),
        ({"images": IMAGES + 2}, r"must be in \[0, 1\].*values in \[2, 2\].*Scale"),
        ({"images": IMAGES - 0.5}, r"must be in \[0, 1\].*values in \[-0\.5, -0\.5\]"),
        ({"images": IMAGES + 1.000001}, r"must be in \[0, 1\].*1\.00000095"),
        ({"images": IMAGES * torch.nan}, r"must be in \[0, 1\].*nan.*2 of 2, first in image 0"),
        ({"images": torch.stack([IMAGES[0], IMAGES[0] + torch.inf])}, r"1 of 2, first in image 1"),
        ({"images": IMAGES.int()}, r"floats or bytes.*torch\.int32.*uint8"),
        ({"images": IMAGES.bool()}, r"floats or bytes.*torch\.bool"),
        ({"images": IMAGES.cfloat()}, r"floats or bytes.*torch\.complex64"),
    ],
)
def test_a_split_checks_its_images(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        Split(**{"images": IMAGES, "labels": LABELS, **fields})


def test_the_number_of_classes_does_not_come_from_test_images() -> None:
    train, validation = tiny_split(6, n_classes=2), tiny_split(6, n_classes=3)
    data = Dataset(name="x", train=train, validation=validation, test=tiny_split(6, n_classes=2))
    assert data.n_classes == 3
    assert data.shape == (1, 4, 4)
    with pytest.raises(InvalidConfigError, match=r"`test` must have labels below 3.*but got 3"):
        Dataset(name="x", train=train, validation=validation, test=tiny_split(6, n_classes=4))


VALUES = random_images(4, 3, 5, 5, dtype=torch.float32)
CHANNELS_LAST = VALUES.permute(0, 2, 3, 1).contiguous()
READ_ONLY = VALUES.numpy().copy()
READ_ONLY.flags.writeable = False

FORMS: dict[str, Any] = {
    "a tensor": VALUES,
    "permuted from channels last": CHANNELS_LAST.permute(0, 3, 1, 2),
    "in the memory format channels last": VALUES.to(memory_format=torch.channels_last),
    "every second": VALUES.repeat_interleave(2, 0)[::2],
    "with a gradient": VALUES.clone().requires_grad_(),
    "computed with a gradient": VALUES.clone().requires_grad_() * 1,
    "a parameter": torch.nn.Parameter(VALUES.clone()),
    "double": VALUES.double(),
    "sparse": VALUES.to_sparse(),
    "computed in inference mode": torch.inference_mode()(VALUES.clone)(),
    "numpy": VALUES.numpy(),
    "numpy, permuted": CHANNELS_LAST.numpy().transpose(0, 3, 1, 2),
    "numpy, mirrored twice": np.ascontiguousarray(VALUES.numpy()[::-1])[::-1],
    "numpy, read-only": READ_ONLY,
    "numpy, of another byte order": VALUES.numpy().astype(">f4"),
}


@pytest.mark.parametrize("images", FORMS.values(), ids=FORMS)
def test_images_of_every_form_are_one_split(images: Any) -> None:
    split = Split(images=images, labels=torch.arange(4))
    assert type(split.images) is Tensor
    assert split.images.is_contiguous()
    assert not split.images.requires_grad
    assert not split.images.is_inference()
    assert torch.equal(split.images.float(), VALUES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read(dtype: torch.dtype) -> None:
    ((x, _),) = Split(images=VALUES.to(dtype), labels=torch.arange(4)).batches(4, torch.float32)
    torch.testing.assert_close(x, VALUES, atol=0.004, rtol=0)


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "int64", "uint64", ">i4", "bool"])
def test_labels_of_every_kind_are_64_bit_integers(kind: str) -> None:
    labels = np.array([0, 1, 1, 0]).astype(kind)
    split = Split(images=VALUES, labels=cast(Tensor, labels))
    assert split.labels.dtype == torch.int64
    assert split.labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("shape", [(784, 1, 1), (9, 128, 1), (9, 1, 3), (1, 8, 3), (4, 6, 4)])
def test_narrow_images_and_signals_have_their_channels_first(shape: tuple[int, int, int]) -> None:
    assert Split(images=torch.zeros(2, *shape), labels=LABELS).images.shape[1:] == shape


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
def test_batches_are_contiguous(padding: int, *, flip: bool) -> None:
    config = DataConfig(crop_padding=padding, flip=flip)
    split = Split(images=FORMS["permuted from channels last"], labels=torch.arange(4))
    assert all(x.is_contiguous() for x, _ in epoch(split, config))


TRAIN = tiny_split(6)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": replace(TRAIN, images=torch.ones(6, 1, 4, 5))}, r"\(1, 4, 5\) in test"),
        ({"validation": replace(TRAIN, images=torch.ones(6, 3, 4, 4))}, r"\(3, 4, 4\) in valid"),
        ({"train": replace(TRAIN, labels=torch.ones(6).long())}, "two classes.*all labels are 1"),
        ({"validation": replace(TRAIN, labels=0 * TRAIN.labels)}, "`validation`.*labels are 0"),
        ({"train": replace(TRAIN, labels=TRAIN.labels * 12)}, "below 12.*but got 12"),
        ({"train": replace(TRAIN, images=TRAIN.images / 255)}, r"brightest is 0\.00\d+.*once"),
        ({"train": replace(TRAIN, images=TRAIN.images.byte())}, "brightest is 0.*once"),
    ],
    ids=[
        "size",
        "channels",
        "one class",
        "one class judged",
        "far label",
        "scaled twice",
        "bytes of fractions",
    ],
)
def test_splits_that_do_not_match_are_refused(splits: dict[str, Split], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        Dataset(**{"name": "x", "train": TRAIN, "validation": TRAIN, "test": TRAIN, **splits})
