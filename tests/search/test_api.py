"""The Python API: what `search` exports, and what a sweep shows of itself."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import search
from search.api.explain import explain
from search.api.export import export
from search.study.folder import Sweep
from tests import ROOT
from tests.helpers.small_sweep import copy_of

OBJECTIVES = ("natural", "robust")
PACKAGES = ("generalist_core", "spaces", "search")


def python(code: str) -> str:
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_public_names_are_listed_once_and_can_be_imported() -> None:
    assert dir(search) == sorted(search.__all__)
    assert len(search.__all__) == 35
    for name in search.__all__:
        assert inspect.getdoc(getattr(search, name))
    with pytest.raises(AttributeError, match="No search attribute swep"):
        _ = search.swep


@pytest.mark.parametrize("name", ["explain", "export", "sweep", "train", "verify"])
def test_a_function_is_not_hidden_by_the_file_of_its_name(name: str) -> None:
    file = importlib.import_module(f"search.api.{name}")
    assert getattr(search, name) is vars(file)[name]


def test_neither_search_nor_help_imports_what_is_slow() -> None:
    code = """
import sys, search
from search.cli.main import main
main(["--help"])
print(sorted({"torch", "ray", "optuna", "pandas", "matplotlib"} & set(sys.modules)))
"""
    assert python(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_for_users_too(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.fixture(scope="module")
def swept(two_trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return copy_of(two_trials, tmp_path_factory.mktemp("api") / "sweep")


def test_a_sweep_picks_reports_and_exports_itself(swept: Sweep, tmp_path: Path) -> None:
    assert swept.hypervolume == swept.front.hypervolume > 0
    picked = swept.pick("max natural")
    assert picked.point in swept.front.points
    card = export(swept, "max natural", tmp_path / "model.pt")
    assert card["trial"] == picked.point.trial
    assert explain(swept, 0).startswith("Trial 0000")


def test_a_sweep_is_short_in_a_console_and_a_table_in_a_notebook(swept: Sweep) -> None:
    assert (
        repr(swept)
        == f"<Sweep {swept.folder}: 2 trials completed, 0 stopped early; {swept.front!r}>"
    )
    table = swept._repr_html_()
    assert table.count("<tr>") == 1 + len(swept.front.points)
    assert f"Sweep {swept.folder}: 2 trials completed" in table
