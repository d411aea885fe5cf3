"""The folder of a sweep: its request is written and read, and what is no request is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generalist_core.config.presets import short
from generalist_core.fingerprints import file_digest
from generalist_core.validation import InvalidConfigError
from search.config import Floor, SweepConfig
from search.errors import SweepFolderError
from search.files import read_json, write_json
from search.folders import SweepFolder
from search.study.folder import (
    FORMAT,
    custom_parts,
    open_sweep,
    pinned_space,
    read_request,
    require_custom_parts,
    require_pinned_space,
    write_request,
)
from spaces import SPACES
from tests.helpers.problems import tiny_dataset, tiny_split

CONFIG = SweepConfig(
    base=short(), sampler="gp", at_least=(Floor(objective="natural", accuracy=0.5),)
)


@pytest.fixture
def files(tmp_path: Path) -> SweepFolder:
    """A folder with a request."""
    write_request(tmp_path, CONFIG, "name", custom_parts(None, None))
    return SweepFolder(tmp_path)


def test_a_request_is_read_as_it_was_written(files: SweepFolder) -> None:
    assert read_request(files.root) == CONFIG
    stored = read_json(files.request)
    assert stored["format"] == FORMAT
    assert {"command", "git", "torch", "generalist-search"} <= set(stored["environment"])


OTHER_FORMATS: dict[str, tuple[Mapping[str, Any], int]] = {
    "the first": ({"request": {"config": {}}, "study": "name", "own": {"data": None}}, 1),
    "a later one": ({"format": 3, "request": {}, "study": "name", "custom": {}}, 3),
}


@pytest.mark.parametrize(("stored", "number"), OTHER_FORMATS.values(), ids=OTHER_FORMATS)
def test_a_sweep_of_another_format_is_refused(
    stored: Mapping[str, Any], number: int, files: SweepFolder
) -> None:
    write_json(files.request, stored)
    message = (
        rf"sweep\.json must be a sweep's request of format 2, but is one of format {number}\. "
        r"Open the sweep with the version that began it\."
    )
    with pytest.raises(SweepFolderError, match=message):
        open_sweep(files.root)


@pytest.mark.parametrize("stored", [[], {}, {"format": FORMAT}, {"request": {}}])
def test_what_is_no_request_is_refused(stored: object, files: SweepFolder) -> None:
    write_json(files.request, stored)
    with pytest.raises(SweepFolderError, match=r"sweep\.json must hold a sweep's request"):
        read_request(files.root)


def test_without_its_journal_a_sweep_is_not_opened(files: SweepFolder) -> None:
    with pytest.raises(SweepFolderError, match=r"must hold the study\.journal of a sweep"):
        open_sweep(files.root)


def test_custom_parts_must_be_given_again(files: SweepFolder) -> None:
    data, other = tiny_dataset(), replace(tiny_dataset(), train=tiny_split(20, seed=7))
    require_custom_parts(files.root, None, None)
    write_request(files.root, CONFIG, "name", custom_parts(data, None))
    require_custom_parts(files.root, data, None)
    for wrong in (None, other):
        with pytest.raises(InvalidConfigError, match="must be the data of the sweep"):
            require_custom_parts(files.root, wrong, None)


def test_the_file_of_a_space_is_pinned(files: SweepFolder, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from spaces import smoke as mine\n")
    config = replace(CONFIG, space=f"{file}:mine")
    pins = pinned_space(config, None)
    assert pins == {"space": file_digest(file)}
    assert pinned_space(CONFIG, None) == pinned_space(config, SPACES["smoke"]) == {}
    write_request(files.root, config, "name", custom_parts(None, None), pins)
    assert require_pinned_space(files.root, config, None) == pins
    file.write_text("from spaces import full as mine\n")
    assert require_pinned_space(files.root, config, SPACES["smoke"]) == pins
    with pytest.raises(InvalidConfigError, match=r"mine\.py:mine` must be as it was"):
        require_pinned_space(files.root, config, None)


def test_a_request_without_pins_is_held_to_none(files: SweepFolder) -> None:
    request = read_json(files.request)
    del request["pins"]
    write_json(files.request, request)
    assert require_pinned_space(files.root, CONFIG, None) == {}


def test_a_finished_sweep_shows_its_results(two_trials: Path) -> None:
    sweep = open_sweep(two_trials)
    assert sweep.counts.completed == 2
    assert sweep.hypervolume == sweep.front.hypervolume > 0
    assert sweep.pick("max natural").point in sweep.front.points
    assert sweep.files.journal.is_file()
