"""Images on disk, read by torchvision: published data sets, folders of images, and resizing.

Importing torchvision takes a second, so this module is imported only where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torchvision import datasets as tv
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
        raise InvalidConfigError(
            f"`data` must be there, but {config.name} was not found in {root} ({error}). Name the "
            "folder that holds it with --data-root, or fetch it with --download."
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

    if path.suffix != ".gz":
        return cast(Tensor, read_sn3_pascalvincent_tensor(str(path)))
    with tempfile.NamedTemporaryFile() as unpacked:
        unpacked.write(gzip.decompress(path.read_bytes()))
        unpacked.flush()
        return cast(Tensor, read_sn3_pascalvincent_tensor(unpacked.name))


def image_folder(config: DataConfig, part: str) -> Split:
    """One part of a data set with one folder per class; its images are resized to a square."""
    folder = Path(config.name) / part
    if not folder.is_dir():
        raise InvalidConfigError(f"`data` must have train/ and test/, but there is no {folder}.")
    classes, expected = _classes(folder), _classes(folder.parent / "train")
    if classes != expected:
        raise InvalidConfigError(
            "`data` must have the same classes in train/ and test/, but got "
            f"{expected} in train/ and {classes} in {part}/."
        )
    size = config.image_size
    if size is None:
        raise InvalidConfigError(
            "`image_size` must be given for an image folder, but got None. Use --image-size 32."
        )

    def load(image: Any) -> Tensor:
        return cast(Tensor, TF.resize(TF.pil_to_tensor(image), [size, size]))

    try:
        data = tv.ImageFolder(str(folder), transform=load)
    except FileNotFoundError as error:
        raise InvalidConfigError(f"`data` must hold images of each class, but {error}.") from error
    images, labels = zip(*data, strict=True)
    return Split(images=torch.stack(images), labels=torch.tensor(labels))


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def resized(split: Split, size: int) -> Split:
    """The images resized to (size, size), bilinearly with antialiasing."""
    if split.images.shape[2:] == (size, size):
        return split
    images = TF.resize(split.images, [size, size])
    return Split(
        images=images.clamp(0, 1) if images.is_floating_point() else images, labels=split.labels
    )
