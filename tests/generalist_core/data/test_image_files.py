"""Published data sets and folders of images, read from tiny files in their formats."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from generalist_core.config import DataConfig
from generalist_core.data.datasets import load_dataset
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import same_bits, write_idx

TRAIN = torch.arange(20 * 6).view(20, 2, 3).to(torch.uint8)


TEST = 255 - TRAIN[:4]


def write_mnist(folder: Path, *, zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, images in (("train", TRAIN), ("t10k", TEST)):
        for name, values in (
            ("images-idx3", images),
            ("labels-idx1", torch.arange(len(images)) % 2),
        ):
            path = folder / f"{part}-{name}-ubyte"
            content = write_idx(path, values)
            if zipped:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
                path.unlink()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("place", ["plain", "zipped", "torchvision"])
def test_idx_files(name: str, place: str, tmp_path: Path) -> None:
    below = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}[name]
    write_mnist(tmp_path / below if place == "torchvision" else tmp_path, zipped=place == "zipped")
    data = load_dataset(DataConfig(name=name, root=str(tmp_path), n_validation=4))
    assert data.test is not None
    assert torch.equal(data.test.images, TEST.unsqueeze(1))
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    images = torch.cat([data.train.images, data.validation.images])[:, 0]
    assert torch.equal(images[images[:, 0, 0].argsort()], TRAIN)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"])
def test_missing_data_are_named_with_their_place_and_the_cure(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError) as error:
        load_dataset(DataConfig(name=name, root=str(tmp_path)))
    assert all(part in str(error.value) for part in (name, str(tmp_path), "--data-root"))
    assert not any(tmp_path.iterdir())


def write_folder(folder: Path, parts: dict[str, dict[str, int]], size: tuple[int, int]) -> None:
    """Images by part and class: red for class a, green for b, blue for c."""
    for part, classes in parts.items():
        for name, n in classes.items():
            (folder / part / name).mkdir(parents=True)
            for i in range(n):
                color = [200 if channel == "abc".index(name) else 0 for channel in range(3)]
                Image.new("RGB", size, tuple(color)).save(folder / part / name / f"{i}.png")


def brightest_channel(images: Tensor) -> list[int]:
    return images.flatten(2).float().mean(2).argmax(1).tolist()


def test_a_folder_of_images(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": {"a": 4, "b": 4}, "test": {"a": 1, "b": 2}}, size=(7, 5))
    data = load_dataset(DataConfig(name=str(tmp_path), image_size=4, n_validation=2))
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 3)
    assert data.shape == (3, 4, 4)
    assert data.train.images.dtype == torch.uint8
    for split in (data.train, data.validation, data.test):
        assert brightest_channel(split.images) == split.labels.tolist()


def test_a_class_without_test_images_shifts_no_labels(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": {"a": 4, "b": 4, "c": 4}, "test": {"a": 1, "c": 2}}, (4, 4))
    try:
        data = load_dataset(DataConfig(name=str(tmp_path), image_size=4, n_validation=3))
    except InvalidConfigError as error:
        assert "b" in str(error)  # noqa: PT017 - to refuse such a folder is as right as to read it
    else:
        assert data.test is not None
        assert data.test.labels.tolist() == brightest_channel(data.test.images)


@pytest.mark.parametrize(
    ("parts", "image_size", "message"),
    [
        ({"train": {"a": 2, "b": 2}}, 4, "train/ and test/.*no .*test"),
        ({"test": {"a": 2, "b": 2}}, 4, "train/ and test/.*no .*train"),
        ({"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 1}}, None, "image_size.*--image-size"),
        ({"train": {"a": 2, "b": 0}, "test": {"a": 1, "b": 1}}, 4, "b"),
        ({"train": {}, "test": {}}, 4, "train"),
    ],
    ids=["no test", "no train", "no size", "an empty class", "no classes"],
)
def test_a_folder_that_cannot_be_read_is_refused(
    parts: dict[str, dict[str, int]], image_size: int | None, message: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, parts, (4, 4))
    for part in parts:
        (tmp_path / part).mkdir(exist_ok=True)
    with pytest.raises(InvalidConfigError, match=message):
        load_dataset(DataConfig(name=str(tmp_path), image_size=image_size, n_validation=2))


@pytest.mark.parametrize("size", [4, 8, 12])
def test_images_are_resized_to_a_square(size: int) -> None:
    plain = load_dataset(DataConfig(n_validation=100))
    resized = load_dataset(DataConfig(n_validation=100, image_size=size))
    assert resized.test is not None
    assert plain.test is not None
    assert resized.shape == (1, size, size)
    assert resized.test.images.shape[2:] == (size, size)
    means = [d.test.images.mean(dim=(1, 2, 3)) for d in (plain, resized) if d.test is not None]
    torch.testing.assert_close(*means, atol=0.03, rtol=0)
    assert (size == 8) == same_bits(resized.train.images, plain.train.images)
