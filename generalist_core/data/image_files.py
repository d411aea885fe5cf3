"""Images on disk, read by torchvision: published data sets, folders of images, and resizing.

Importing torchvision takes a second, so this module is imported only where it is needed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import datasets as tv
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as TF

from generalist_core.config import DataConfig
from generalist_core.data.splits import Split
from generalist_core.validation import InvalidConfigError


def published(config: DataConfig, *, is_train: bool) -> Split:
    """One part of a torchvision data set; idx files outside torchvision's folders are read too."""
    build, plain_folder = PUBLISHED[config.name]
    root = Path(config.root)
    if plain_folder and (plain := _idx_files(root, is_train)):
        return Split(images=_read_idx(plain[0]).unsqueeze(1), labels=_read_idx(plain[1]).long())
    try:
        return build(root, is_train, config.download)
    except (RuntimeError, OSError) as error:
        if _is_of_the_machine(error):
            raise
        raise InvalidConfigError(
            f"`data` must be there, but {config.name} was not found in {root} ({error}). Name the "
            "folder that holds it with --data-root, or fetch it with --download."
        ) from error
    except pickle.UnpicklingError as error:
        raise InvalidConfigError(
            f"`data` must hold only tensors, but a file of {config.name} in {root} holds something "
            "else, or code. Fetch it again with --download."
        ) from error


def _gray(kind: type[tv.MNIST]) -> Callable[[Path, bool, bool], Split]:
    def build(root: Path, is_train: bool, download: bool) -> Split:
        data = kind(root, train=is_train, download=download)
        return Split(images=data.data.unsqueeze(1), labels=data.targets)

    return build


def _cifar(kind: type[tv.CIFAR10]) -> Callable[[Path, bool, bool], Split]:
    def build(root: Path, is_train: bool, download: bool) -> Split:
        data = kind(root, train=is_train, download=download)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return Split(images=images, labels=torch.tensor(data.targets))

    return build


def _svhn(root: Path, is_train: bool, download: bool) -> Split:
    data = tv.SVHN(root, split="train" if is_train else "test", download=download)
    return Split(images=torch.from_numpy(data.data), labels=torch.from_numpy(data.labels).long())


PUBLISHED: dict[str, tuple[Callable[[Path, bool, bool], Split], bool]] = {
    "mnist": (_gray(tv.MNIST), True),
    "fashion-mnist": (_gray(tv.FashionMNIST), True),
    "cifar10": (_cifar(tv.CIFAR10), False),
    "cifar100": (_cifar(tv.CIFAR100), False),
    "svhn": (_svhn, False),
}


def _idx_files(root: Path, is_train: bool) -> tuple[Path, Path] | None:
    """The published files of a part's images and labels, gzipped or not, if both are in `root`."""
    part = "train" if is_train else "t10k"
    for end in ("", ".gz"):
        images = root / f"{part}-images-idx3-ubyte{end}"
        labels = root / f"{part}-labels-idx1-ubyte{end}"
        if images.is_file() and labels.is_file():
            return images, labels
    return None


def _read_idx(path: Path) -> Tensor:
    """The tensor of bytes in an idx file, which is unpacked for torchvision to read."""
    import gzip
    import tempfile

    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    try:
        content = path.read_bytes()
        with tempfile.NamedTemporaryFile() as unpacked:
            unpacked.write(gzip.decompress(content) if path.suffix == ".gz" else content)
            unpacked.flush()
            return cast(Tensor, read_sn3_pascalvincent_tensor(unpacked.name))
    # Torchvision's reader has no common error, as Pillow has none.
    except Exception as error:
        if _is_of_the_machine(error):
            raise
        raise InvalidConfigError(
            f"`data` must be whole, but {path} cannot be read ({error}). Fetch this file again."
        ) from error


def image_folder(config: DataConfig, part: str) -> Split:
    """One part of a data set with one folder per class; its images are resized to a square.

    Images are turned upright as their EXIF orientation says, and must have one frame. White is
    65535 in integers of 16 and 32 bits, and 1 in floats. Hidden files and folders, and files that
    are no images by their name, are left out.
    """
    folder = Path(config.name) / part
    if not folder.is_dir():
        raise InvalidConfigError(f"`data` must have train/ and test/, but there is no {folder}.")
    classes = _classes(folder)
    size = config.image_size
    if size is None:
        raise InvalidConfigError(
            "`image_size` must be given for an image folder, but got None. Use --image-size 32."
        )

    images = [_read_image(path, size) for files in classes.values() for path in files]
    labels = [label for label, files in enumerate(classes.values()) for _ in files]
    return Split(images=torch.stack(images), labels=torch.tensor(labels))


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class in a part's folder, both in the order of their names."""
    names, expected = (
        {path.name for path in _visible(place) if path.is_dir()}
        for place in (folder, folder.parent / "train")
    )
    if names != expected:
        raise InvalidConfigError(
            "`data` must have the same classes in train/ and test/, but in "
            f"{folder.parent} only one of them has {_first_of(names ^ expected)}."
        )
    classes = {name: _images_of(folder / name) for name in sorted(names)}
    if len(classes) < 2:
        raise InvalidConfigError(
            f"`data` must have a folder for each of at least two classes in {folder}, but got "
            f"{_first_of(names)}."
        )
    return classes


def _first_of(names: Collection[str]) -> str:
    """Up to five names in order, and how many more there are."""
    first = ", ".join(sorted(names)[:5]) or "none"
    return first if len(names) <= 5 else f"{first} and {len(names) - 5} more"


def _visible(folder: Path) -> list[Path]:
    """What a folder that exists holds, by name, but for hidden files and folders."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _images_of(folder: Path) -> list[Path]:
    """The image files in the folder of a class, which has at least one and no folders."""
    paths = _visible(folder)
    if folders := [path.name for path in paths if path.is_dir()]:
        raise InvalidConfigError(
            f"The folder of a class must hold its images themselves, but {folder} holds the folder "
            f"{_first_of(folders)}. Folders of classes belong directly below train/ and test/."
        )
    images = [path for path in paths if path.suffix.lower() in EXTENSIONS]
    if not images:
        raise InvalidConfigError(
            f"`data` must hold images of each class, but there are none in {folder}. Images end in "
            f"{', '.join(EXTENSIONS)}."
        )
    return images


EXTENSIONS = (*IMG_EXTENSIONS, ".gif", ".jfif")


def _read_image(path: Path, size: int) -> Tensor:
    """The image in a file as bytes (3, size, size)."""
    try:
        with Image.open(path) as image:
            _require_one_frame(image)
            pixels = TF.pil_to_tensor(_as_rgb(ImageOps.exif_transpose(image)))
    # Pillow has no common error: what a broken file raises depends on where it is broken.
    except Exception as error:
        if _is_of_the_machine(error):
            raise
        raise InvalidConfigError(
            f"`data` must hold images that can be read, but {path} cannot ({error}). Replace or "
            "remove this file."
        ) from error
    return cast(Tensor, TF.resize(pixels, [size, size]))


def _is_of_the_machine(error: Exception) -> bool:
    """Whether memory, open files or a disk fell short, which a file has no part in."""
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return error.errno is not None  # the errors of Pillow and gzip have no number
    return isinstance(error, MemoryError)


def _require_one_frame(image: Image.Image) -> None:
    """Refuse animations and stacks; the further frames of a camera's MPO are only other views."""
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1 and image.format != "MPO":
        raise ValueError(f"it must have one frame, but has {n_frames}; save the one that is meant")


def _as_rgb(image: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue: deeper grays are scaled, and transparency is white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _eight_bits(pixels: np.ndarray) -> Image.Image:
    """A gray image of 16-bit integers, or of floats in [0, 1], in eight bits."""
    white = 1.0 if pixels.dtype.kind == "f" else 65535.0
    low, high = float(pixels.min()), float(pixels.max())
    if not 0 <= low <= high <= white:
        raise ValueError(f"its pixels must be in [0, {white:g}], but are in [{low:g}, {high:g}]")
    if 0 < high <= white / 255:  # seen for eight bits in a wider type, which would become black
        raise ValueError(
            f"its brightest pixel must be 0 or above {white / 255:.3g}, as white is {white:g}, but "
            f"is {high:.3g}; save it in eight bits"
        )
    return Image.fromarray((pixels * (255 / white)).round().astype(np.uint8))


def resized(split: Split, size: int) -> Split:
    """The images resized to (size, size), bilinearly with antialiasing.

    Raises:
        InvalidConfigError: they cannot be allocated.
    """
    if split.images.shape[2:] == (size, size):
        return split
    try:
        images = TF.resize(split.images, [size, size])
    except RuntimeError as error:
        raise InvalidConfigError(
            f"`image_size` must be one at which {len(split)} images fit into memory, but got "
            f"image_size={size}: {error}."
        ) from error
    return Split(
        images=images.clamp(0, 1) if images.is_floating_point() else images, labels=split.labels
    )
