"""Who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ONLY_IN = {
    "ray": {
        "search/cluster.py",
        "search/trainable.py",
        "search/tuning.py",
    },
    "optuna": {
        "search/entries.py",
        "search/importance.py",
        "search/ledger.py",
        "search/samplers.py",
        "search/sampling.py",
        "search/storage.py",
    },
    "moocore": {
        "search/attainment.py",
        "search/early_stopping.py",
        "search/front.py",
        "search/importance.py",
        "search/sampling.py",
    },
    "pandas": {"search/request.py", "search/tables.py"},
    "matplotlib": {"search/monitor.py", "search/plots.py"},
    "tensorboard": {"search/hparams.py"},
    "plotly": {"search/figures.py", "search/html_report.py", "search/parameter_figures.py"},
}


def imports(path: Path) -> set[str]:
    """The top-level names of every module that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_that_could_be_replaced_is_imported_in_few_files(library: str) -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in ("generalist_core", "spaces", "search")
        for path in (ROOT / package).rglob("*.py")
        if library in imports(path)
    }
    assert found == ONLY_IN[library]


@pytest.mark.parametrize(
    ("package", "above"),
    [("generalist_core", {"spaces", "search"}), ("spaces", {"search", "ray", "optuna", "torch"})],
)
def test_no_layer_imports_the_one_above(package: str, above: set[str]) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not imports(path) & above, path
