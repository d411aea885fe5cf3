"""Published data sets and folders of images, read from tiny files in their formats."""

from __future__ import annotations

import errno
import gzip
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from generalist_core.config import DataConfig
from generalist_core.data.datasets import load_dataset, make_dataset
from generalist_core.data.splits import Split
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import random_images, same_bits, write_idx

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


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kept", [0, 3, 60])
@pytest.mark.parametrize("which", ["images-idx3", "labels-idx1"])
def test_a_torn_idx_file_is_named(tmp_path: Path, which: str, kept: int, *, zipped: bool) -> None:
    write_mnist(tmp_path, zipped=zipped)
    path = next(tmp_path.glob(f"train-{which}*"))
    path.write_bytes(path.read_bytes()[: min(kept, path.stat().st_size - 3)])
    with pytest.raises(InvalidConfigError, match=f"{path} cannot be read"):
        load_dataset(DataConfig(name="mnist", root=str(tmp_path), n_validation=4))


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
    with pytest.raises(InvalidConfigError, match=r"only one of them has b\."):
        load_dataset(DataConfig(name=str(tmp_path), image_size=4))


@pytest.mark.parametrize(
    ("parts", "image_size", "message"),
    [
        ({"train": {"a": 2, "b": 2}}, 4, "train/ and test/.*no .*test"),
        ({"test": {"a": 2, "b": 2}}, 4, "train/ and test/.*no .*train"),
        ({"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 1}}, None, "image_size.*--image-size"),
        ({"train": {"a": 2, "b": 0}, "test": {"a": 1, "b": 1}}, 4, r"none in .*train/b\."),
        ({"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 0}}, 4, r"none in .*test/b\."),
        ({"train": {}, "test": {}}, 4, "two classes in .*train, but got none"),
        ({"train": {"a": 4}, "test": {"a": 1}}, 4, "two classes in .*train, but got a"),
    ],
    ids=["no test", "no train", "no size", "empty", "empty in test", "no classes", "one class"],
)
def test_a_folder_that_cannot_be_read_is_refused(
    parts: dict[str, dict[str, int]], image_size: int | None, message: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, parts, (4, 4))
    for part in parts:
        (tmp_path / part).mkdir(exist_ok=True)
    with pytest.raises(InvalidConfigError, match=message):
        load_dataset(DataConfig(name=str(tmp_path), image_size=image_size, n_validation=2))


def two_classes(folder: Path) -> DataConfig:
    """A folder of red and green images."""
    write_folder(folder, {"train": {"a": 3, "b": 3}, "test": {"a": 1, "b": 1}}, (4, 4))
    return DataConfig(name=str(folder), image_size=4, n_validation=2)


def test_hidden_files_and_folders_are_no_data(tmp_path: Path) -> None:
    config = two_classes(tmp_path)
    plain = load_dataset(config)
    image = (tmp_path / "train/a/0.png").read_bytes()
    for part in ("train", "test"):
        for place in (".ipynb_checkpoints/0-checkpoint.png", "a/.ipynb_checkpoints/0.png"):
            (tmp_path / part / place).parent.mkdir()
            (tmp_path / part / place).write_bytes(image)
    (tmp_path / "train" / ".empty").mkdir()
    for name in (".DS_Store", "a/.DS_Store", "a/._0.png", "a/Thumbs.db", "notes.txt", "b/b.txt"):
        (tmp_path / "train" / name).write_bytes(b"no image")
    with_hidden = load_dataset(config)
    assert same_bits(with_hidden.train.images, plain.train.images)
    assert with_hidden.n_classes == 2


@pytest.mark.parametrize("place", ["train/a/sub/x.png", "test/b/sub/x.png", "train/a/sub.png/x"])
def test_a_folder_one_level_too_deep_is_named(tmp_path: Path, place: str) -> None:
    config = two_classes(tmp_path)
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_bytes((tmp_path / "train/a/0.png").read_bytes())
    inner = (tmp_path / place).parent
    with pytest.raises(InvalidConfigError, match=f"{inner.parent} holds the folder {inner.name}"):
        load_dataset(config)


def test_classes_one_level_too_deep_are_named(tmp_path: Path) -> None:
    config = two_classes(tmp_path / "flowers")
    for part in ("train", "test"):
        moved = (tmp_path / "flowers" / part).rename(tmp_path / part)
        (tmp_path / "flowers" / part).mkdir()
        moved.rename(tmp_path / "flowers" / part / "images")
    with pytest.raises(InvalidConfigError, match=r"train/images holds the folder a, b\."):
        load_dataset(config)


def encoded(file_format: str) -> bytes:
    """An image in a format that is compressed, so that it may break anywhere."""
    noise = torch.randint(256, (64, 64, 3), generator=torch.Generator().manual_seed(0))
    content = io.BytesIO()
    Image.fromarray(noise.byte().numpy()).save(content, file_format)
    return content.getvalue()


@pytest.mark.parametrize("file_format", ["png", "jpeg", "gif", "bmp", "webp", "tiff", "ppm"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.02, 0.6])
def test_a_broken_image_is_named_with_its_file(
    tmp_path: Path, file_format: str, kept: float
) -> None:
    config = two_classes(tmp_path)
    content, broken = encoded(file_format), tmp_path / f"train/b/1.{file_format}"
    broken.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InvalidConfigError, match=f"{broken} cannot .*Replace or remove"):
        load_dataset(config)


def gray(kind: str, value: float) -> Image.Image:
    """A gray image whose pixels are numbers of this kind."""
    return Image.fromarray(np.full((5, 7), value, dtype=kind))


def transparent(mode: str, *values: int) -> Image.Image:
    return Image.new(mode, (5, 7), values)


def palette() -> Image.Image:
    """All pixels are number 3 of 256 colors, which is (10, 200, 30)."""
    image = Image.new("P", (5, 7), 3)
    image.putpalette([0] * 9 + [10, 200, 30] + [0] * 756)
    return image


def see_through() -> Image.Image:
    """A palette whose color is transparent."""
    image = palette()
    image.info["transparency"] = 3
    return image


def faint() -> Image.Image:
    """A palette with an opacity for each of its colors."""
    image = palette()
    image.info["transparency"] = bytes([255, 255, 255, 0])
    return image


PIXELS: dict[str, tuple[Image.Image, str, tuple[int, int, int]]] = {
    "gray": (gray("uint8", 77), "png", (77, 77, 77)),
    "bilevel": (Image.new("1", (5, 7), 1), "png", (255, 255, 255)),
    "16 bits": (gray("uint16", 128 * 257), "png", (128, 128, 128)),
    "16 bits, white": (gray("uint16", 65535), "png", (255, 255, 255)),
    "16 bits, pgm": (gray("uint16", 30 * 257), "pgm", (30, 30, 30)),
    "16 bits, tiff": (gray("uint16", 128 * 257), "tif", (128, 128, 128)),
    "16 bits, big-endian": (gray(">u2", 128 * 257), "tif", (128, 128, 128)),
    "32 bits": (gray("int32", 128 * 257), "tif", (128, 128, 128)),
    "floats": (gray("float32", 0.2), "tif", (51, 51, 51)),
    "color": (transparent("RGB", 10, 200, 30), "bmp", (10, 200, 30)),
    "palette": (palette(), "png", (10, 200, 30)),
    "gif": (palette(), "gif", (10, 200, 30)),
    "transparent palette": (see_through(), "png", (255, 255, 255)),
    "opaque": (transparent("RGBA", 10, 200, 30, 255), "png", (10, 200, 30)),
    "transparent": (transparent("RGBA", 10, 200, 30, 0), "png", (255, 255, 255)),
    "half transparent": (transparent("RGBA", 0, 0, 0, 102), "png", (153, 153, 153)),
    "gray, transparent": (transparent("LA", 10, 0), "png", (255, 255, 255)),
    "cmyk": (transparent("CMYK", 255, 0, 0, 0), "tif", (0, 255, 255)),
    "cmyk, jpeg": (transparent("CMYK", 0, 0, 0, 255), "jpg", (0, 0, 0)),
    "palette with an alpha channel": (palette().convert("PA"), "tif", (10, 200, 30)),
    "palette of opacities": (faint(), "png", (255, 255, 255)),
    "16 bits, black": (gray("uint16", 0), "png", (0, 0, 0)),
}


@pytest.mark.parametrize(("image", "end", "color"), PIXELS.values(), ids=PIXELS)
def test_every_kind_of_image_becomes_red_green_and_blue(
    tmp_path: Path, image: Image.Image, end: str, color: tuple[int, int, int]
) -> None:
    config = two_classes(tmp_path)
    (tmp_path / "test/a/0.png").unlink()
    image.save(tmp_path / f"test/a/0.{end}")
    test = load_dataset(config).test
    assert test is not None
    assert test.images.dtype == torch.uint8
    assert test.images[0].flatten(1).unique(dim=1).flatten().tolist() == list(color)


@pytest.mark.parametrize(
    ("image", "law"),
    [
        (gray("int32", 70000), r"\[0, 65535\], but are in \[70000, 70000\]"),
        (gray("int32", -1), r"\[0, 65535\], but are in \[-1, -1\]"),
        (gray("float32", 255), r"\[0, 1\], but are in \[255, 255\]"),
        (gray("float32", math.nan), r"\[0, 1\], but are in \[nan, nan\]"),
        (gray("int32", 200), "0 or above 257, as white is 65535, but is 200; .* eight bits"),
        (gray("uint16", 255), "0 or above 257, as white is 65535, but is 255; .* eight bits"),
        (gray("float32", 1 / 300), "0 or above 0.00392, as white is 1, but is 0.00333"),
    ],
)
def test_pixels_of_unknown_scale_are_refused(tmp_path: Path, image: Image.Image, law: str) -> None:
    config = two_classes(tmp_path)
    image.save(tmp_path / "train/a/9.tif")
    with pytest.raises(InvalidConfigError, match=rf"train/a/9\.tif cannot \(.*{law}"):
        load_dataset(config)


@pytest.mark.parametrize("end", ["jpg", "png", "tif", "webp"])
def test_an_image_that_lies_on_its_side_is_turned_upright(end: str, tmp_path: Path) -> None:
    """Orientation 6 of EXIF: the first row of the file is the right side of the picture."""
    config = two_classes(tmp_path)
    (tmp_path / "test/a/0.png").unlink()
    rows = np.zeros((40, 40, 3), np.uint8)
    rows[:20] = 240
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rows).save(tmp_path / f"test/a/0.{end}", exif=exif)
    test = load_dataset(config).test
    assert test is not None
    columns = test.images[0].float().mean((0, 1))
    assert columns[0] < 20
    assert columns[3] > 220


@pytest.mark.parametrize("end", ["gif", "png", "webp", "tif"])
def test_a_file_of_several_frames_is_refused(end: str, tmp_path: Path) -> None:
    config = two_classes(tmp_path)
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "green")]
    frames[0].save(tmp_path / f"train/a/9.{end}", save_all=True, append_images=frames[1:])
    message = rf"train/a/9\.{end} cannot \(it must have one frame, but has 3"
    with pytest.raises(InvalidConfigError, match=message):
        load_dataset(config)


def test_the_first_view_of_a_camera_s_file_is_the_image(tmp_path: Path) -> None:
    config = two_classes(tmp_path)
    views = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    views[0].save(tmp_path / "test/a/0.jpg", "MPO", save_all=True, append_images=views[1:])
    test = load_dataset(config).test
    assert test is not None
    assert brightest_channel(test.images) == [0, 0, 1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
    ],
    ids=repr,
)
def test_what_the_machine_lacks_is_not_told_as_a_broken_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = two_classes(tmp_path / "folder")
    write_mnist(tmp_path, zipped=True)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    monkeypatch.setattr(gzip, "decompress", fail)
    for given in (config, DataConfig(name="mnist", root=str(tmp_path), n_validation=4)):
        with pytest.raises(type(error)) as raised:
            load_dataset(given)
        assert raised.value is error


def test_a_wide_image_is_squeezed_to_a_square(tmp_path: Path) -> None:
    config = two_classes(tmp_path)
    halves = np.zeros((10, 40, 3), np.uint8)
    halves[:, 20:] = 240
    Image.fromarray(halves).save(tmp_path / "test/a/0.png")
    test = load_dataset(config).test
    assert test is not None
    columns = test.images[0].float().mean((0, 1))
    assert columns[0] < 20
    assert columns[3] > 220


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


def test_custom_images_are_resized_too() -> None:
    custom = Split(images=random_images(20, 3, 6, 8), labels=torch.arange(20) % 2)
    data = make_dataset(DataConfig(n_validation=4, image_size=3), custom, custom)
    assert data.test is not None
    assert (data.shape, data.test.images.shape) == ((3, 3, 3), (20, 3, 3, 3))
