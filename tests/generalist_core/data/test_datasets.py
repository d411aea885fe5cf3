"""Data sets by name, and splits that are disjoint, stratified and seeded."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from generalist_core.config import DataConfig
from generalist_core.data.datasets import load_dataset, make_dataset
from generalist_core.data.splits import Dataset, Split
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import same_bits


def numbered(counts: tuple[int, ...]) -> Split:
    """As many images of each class as `counts` says; the value of every image is its number."""
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    images = torch.arange(len(labels)).div(255).view(-1, 1, 1, 1)
    return Split(images=images, labels=labels)


def numbers(split: Split) -> list[int]:
    return (split.images[:, 0, 0, 0] * 255).round().int().tolist()


def split_of(n_validation: int, counts: tuple[int, ...] = (30, 60), **fields: int) -> Dataset:
    config = DataConfig(n_validation=n_validation, **fields)
    return make_dataset(config, numbered(counts), None)


def test_train_and_validation_are_disjoint_and_whole() -> None:
    data = split_of(30)
    assert len(data.validation) == 30
    assert sorted(numbers(data.train) + numbers(data.validation)) == list(range(90))


def test_validation_keeps_the_label_frequencies() -> None:
    assert torch.bincount(split_of(30).validation.labels).tolist() == [10, 20]
    assert torch.bincount(split_of(30, n_train=15).train.labels).tolist() == [5, 10]


def test_the_split_seed_alone_decides() -> None:
    assert same_bits(numbers(split_of(30).validation), numbers(split_of(30).validation))
    other = split_of(30, split_seed=1).validation
    assert set(numbers(other)) != set(numbers(split_of(30).validation))


def test_fewer_training_images_leave_validation_alone() -> None:
    few, all_ = split_of(30, n_train=12), split_of(30)
    assert len(few.train) == 12
    assert numbers(few.validation) == numbers(all_.validation)
    assert set(numbers(few.train)) < set(numbers(all_.train))
    assert set(numbers(split_of(30, n_train=60).train)) == set(numbers(all_.train))


def test_labels_stay_with_their_images() -> None:
    data = split_of(30, n_train=20)
    for split in (data.train, data.validation):
        assert split.labels.tolist() == [int(number >= 30) for number in numbers(split)]


@pytest.mark.parametrize(
    ("n_validation", "fields", "counts", "message"),
    [
        (90, {}, (30, 60), "90 of 90 images.*--n-validation.*2 to 88"),
        (1, {}, (30, 60), "1 of 90 images"),
        (30, {"n_train": 61}, (30, 60), "`n_train` must be at most .*n_train=61 and 60 images"),
        (30, {"n_train": 1}, (30, 60), "1 of 60 images.*--n-train"),
        (5, {}, (1, 60), "two images of each class, but got 1 of class 0"),
    ],
    ids=[
        "none to train on",
        "too few for a class each",
        "n_train",
        "small n_train",
        "a lone image",
    ],
)
def test_splits_that_cannot_be_made_are_refused(
    n_validation: int, fields: dict[str, int], counts: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        split_of(n_validation, counts, **fields)


@pytest.mark.parametrize(
    ("counts", "n_validation"),
    [((700, 700), 500), ((90, 90), 72), ((6, 6), 4), ((2, 2), 2), ((2,) * 40, 40)],
)
def test_the_default_fits_the_number_of_images(counts: tuple[int, ...], n_validation: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = torch.ones(len(labels), 1, 1, 1)
    data = make_dataset(DataConfig(), Split(images=images, labels=labels), None)
    assert (len(data.validation), len(data.train)) == (n_validation, sum(counts) - n_validation)
    assert data.n_classes == len(counts)


def test_digits() -> None:
    data = load_dataset(DataConfig(name="digits", n_validation=100))
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (1338, 100, 359)
    assert (data.n_classes, data.shape) == (10, (1, 8, 8))
    images = torch.cat([data.train.images, data.validation.images, data.test.images])
    every = torch.from_numpy(load_digits().images / 16).float().flatten(1)
    assert sorted(images.flatten(1).tolist()) == sorted(every.tolist())


def test_digits_test_images_do_not_depend_on_the_configuration() -> None:
    first = load_dataset(DataConfig(n_validation=100))
    second = load_dataset(DataConfig(n_validation=50, split_seed=3, n_train=100))
    assert first.test is not None
    assert second.test is not None
    assert torch.equal(first.test.images, second.test.images)


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(InvalidConfigError, match=r"digits.*cifar10.*folder.*'cifar11'"):
        load_dataset(DataConfig(name="cifar11"))
