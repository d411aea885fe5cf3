"""The Python API: what `search` exports, and what a sweep shows of itself."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

import search
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.trainer import Metrics
from search.api.explain import explain
from search.api.export import export
from search.api.report import write_report
from search.api.train import train
from search.errors import SweepFolderError
from search.front.points import values_of
from search.study.folder import Sweep
from search.study.ledger import Ledger
from search.study.tables import points_table, trials_table
from tests import ROOT
from tests.helpers.small_sweep import copy_of
from tests.helpers.tiny import tiny_config

OBJECTIVES = ("natural", "robust")
PACKAGES = ("generalist_core", "spaces", "search")


def python(code: str) -> str:
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_public_names_are_listed_once_and_can_be_imported() -> None:
    assert dir(search) == sorted(search.__all__)
    assert len(search.__all__) == 26
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
try:
    main(["--help"])
except SystemExit:
    pass
print(sorted({"torch", "ray", "optuna", "pandas", "matplotlib"} & set(sys.modules)))
"""
    assert python(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_for_users_too(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.fixture(scope="module")
def swept(two_trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return copy_of(two_trials, tmp_path_factory.mktemp("api") / "sweep")


def test_trials_are_a_table_with_a_row_each(swept: Sweep) -> None:
    table = swept.trials
    assert list(table.index) == ["0000", "0001"]
    assert set(table["state"]) == {"completed"}
    assert table["on_front"].sum() == len(swept.front.points)
    assert (table["forward_images"] > 0).all()
    assert "experts.natural.optimizer.lr" in table.columns
    for trial, row in table.iterrows():
        own = [point for point in swept.results.points() if point.trial == trial]
        best = values_of(own, OBJECTIVES).max(0)
        assert [row[f"best_{name}"] for name in OBJECTIVES] == pytest.approx(best.tolist())


def test_points_are_a_table_with_a_row_each(swept: Sweep) -> None:
    table, points = swept.points, swept.results.points()
    assert len(table) == len(points)
    assert table["on_front"].sum() == len(swept.front.points)
    for (trial, row), point in zip(table.iterrows(), points, strict=True):
        assert (trial, row["mixing_ratio"]) == (point.trial, point.mixing_ratio)
        assert (row["robust_low"], row["robust_high"]) == point.interval("robust")


def test_without_trials_the_tables_are_empty() -> None:
    ledger = Ledger(InMemoryStorage(), OBJECTIVES)
    assert len(trials_table(ledger.results)) == len(points_table(ledger.results)) == 0


def test_a_sweep_picks_reports_and_exports_itself(swept: Sweep, tmp_path: Path) -> None:
    assert swept.hypervolume == swept.front.hypervolume > 0
    picked = swept.pick("max natural")
    assert picked.point in swept.front.points
    write_report(swept)
    card = export(swept, "max natural", tmp_path / "model.pt")
    assert card["trial"] == picked.point.trial
    assert explain(swept, 0).startswith("Trial 0000")


def test_train_returns_what_it_released_and_tells_every_epoch(tmp_path: Path) -> None:
    epochs: list[Metrics] = []
    trained = train(tiny_config(), tmp_path / "run", on_epoch=epochs.append)
    assert [metrics["epoch"] for metrics in epochs] == [1, 2]
    assert all(isinstance(point, OperatingPoint) for point in trained.points)
    assert trained.forward_images > epochs[-1]["forward_images"]
    assert {path.name for path in trained.folder.iterdir()} == {
        "averages.pt",
        "config.json",
        "metrics.jsonl",
        "points.json",
        "tensorboard",
    }
    with pytest.raises(SweepFolderError, match="new or empty"):
        train(tiny_config(), tmp_path / "run")
