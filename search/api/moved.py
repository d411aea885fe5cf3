"""Parts of a sweep that are found elsewhere than when it began."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from generalist_core.config import DataConfig, ModelConfig
from generalist_core.data.datasets import DATASETS, load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.fingerprints import images_digest
from generalist_core.models.build import ModelFactory, build_model
from generalist_core.user_code import absolute_name, require_unchanged
from generalist_core.validation import InvalidConfigError
from search.config import CustomParts
from search.files import read_json
from search.folders import SweepFolder
from search.study.folder import read_request, require_pinned_images
from spaces import Space, load_space


def moved_parts(
    folder: Path,
    *,
    data_root: Path | None = None,
    model: str | None = None,
    space: str | None = None,
) -> CustomParts:
    """The parts of a sweep from where they are now; None for those that have not moved.

    Args:
        folder: that of the sweep.
        data_root: the folder of the data, or of the images if the data are a folder of images.
        model: the name `FILE.py:FUNCTION` of the model.
        space: that of the space.

    Raises:
        InvalidConfigError: a part is not the one that the sweep began with, by its digest, or the
            sweep has none that could move.
        SweepFolderError: the folder holds no sweep.
    """
    config = read_request(folder)
    pins = read_json(SweepFolder(folder).request).get("pins", {})
    return CustomParts(
        data=_moved_data(config.base.data, data_root, pins.get("images")) if data_root else None,
        model=_moved_model(config.base.model, model) if model else None,
        space=_moved_space(space, pins.get("space")) if space else None,
    )


def _moved_data(config: DataConfig, root: Path, digest: str | None) -> Dataset:
    if digest is None:
        raise _immovable("data-root", "has no digest of its images")
    place = str(root.absolute())
    is_named = config.name in DATASETS
    data = load_dataset(replace(config, root=place) if is_named else replace(config, name=place))
    require_pinned_images({"images": digest}, images_digest(data.train, data.validation))
    return data


def _moved_model(config: ModelConfig, name: str) -> ModelFactory:
    if not config.digest:
        raise _immovable("model", f"has the model {config.name}, which is not in a file")
    name = absolute_name(name)
    require_unchanged(name, config.digest)
    return partial(build_model, replace(config, name=name), seed=None)


def _moved_space(name: str, digest: str | None) -> Space:
    if digest is None:
        raise _immovable("space", "has a space that is built in, or from Python")
    require_unchanged(absolute_name(name), digest)
    return load_space(absolute_name(name))


def _immovable(option: str, why: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"`--{option}` must be left out if there is nothing to move, but this sweep {why}."
    )
