"""A request that was changed by hand is accepted, if `resume` may change it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from generalist_core.config.presets import short
from search.api.accept import accept_request
from search.config import SweepConfig
from search.errors import SweepFolderError
from search.files import read_json, write_json
from search.lease import leased
from search.study.folder import custom_parts, open_ledger, open_sweep, write_request

CONFIG = SweepConfig(base=short())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep that has just begun."""
    write_request(tmp_path, CONFIG, "name", custom_parts(None, None))
    open_ledger(tmp_path, CONFIG, "name", is_new=True)
    return tmp_path


def edit(folder: Path, **changes: Any) -> None:
    document = read_json(folder / "sweep.json")
    document["request"].update(changes)
    write_json(folder / "sweep.json", document)


def test_what_was_accepted_is_the_request_from_then_on(folder: Path) -> None:
    edit(folder, trials=40)
    accept_request(folder)
    assert open_sweep(folder).config.trials == 40
    edit(folder, trials=20)
    with pytest.raises(SweepFolderError, match="trials was 40 and is 20"):
        open_sweep(folder)


def test_another_setting_is_not_accepted(folder: Path) -> None:
    edit(folder, seed=7)
    before = (folder / "study.journal").read_bytes()
    with pytest.raises(SweepFolderError, match="seed was 0 and is 7"):
        accept_request(folder)
    assert (folder / "study.journal").read_bytes() == before


def test_a_sweep_that_another_process_runs_is_left_alone(folder: Path) -> None:
    with (
        leased(folder / ".lease", waits=False),
        pytest.raises(SweepFolderError, match="one process at a time"),
    ):
        accept_request(folder)


def test_a_folder_without_a_sweep_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(SweepFolderError, match=r"sweep\.json must exist"):
        accept_request(tmp_path)
    assert not list(tmp_path.iterdir())
