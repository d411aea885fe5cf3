"""optuna-dashboard opens the study of a running sweep."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.folders import SweepFolder
from search.study.folder import open_sweep
from spaces import SPACES
from tests.helpers.browser import CHROMIUM, browsing
from tests.helpers.serving import ask, serving
from tests.helpers.small_sweep import copy_of
from tests.helpers.tiny import tiny_config

pytestmark = pytest.mark.slow
PROGRAM = shutil.which("optuna-dashboard", path=sysconfig.get_path("scripts"))


@pytest.fixture
def address(two_trials: Path, tmp_path: Path) -> Iterator[str]:
    """A dashboard over two completed trials and one that runs."""
    copy_of(two_trials, tmp_path / "out").ledger.ask(SPACES["smoke"], tiny_config())
    yield from serving(str(PROGRAM), str(SweepFolder(tmp_path / "out").journal))


def test_it_has_the_objectives_names_and_all_trials(address: str, tmp_path: Path) -> None:
    (study,) = ask(f"{address}/api/studies")["study_summaries"]
    assert study["directions"] == ["maximize", "maximize"]
    found = ask(f"{address}/api/studies/{study['study_id']}")
    ledger = open_sweep(tmp_path / "out").ledger
    assert found["objective_names"] == ["natural", "robust"]
    mixtures = [point for point in ledger.results.points() if not point.is_global]
    assert len(found["trials"]) == len(mixtures) + 1
    assert [trial["state"] for trial in found["trials"]].count("Running") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_its_page_shows_them(address: str, tmp_path: Path) -> None:
    (study,) = ask(f"{address}/api/studies")["study_summaries"]
    with browsing(tmp_path / "profile") as page:
        page.open(f"{address}/dashboard/studies/{study['study_id']}")
        page.wait_for(study["study_name"], "natural", "robust")
