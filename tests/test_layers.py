"""Who may import whom; imports inside functions and for types count."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

from tests import ROOT

PACKAGES = ("generalist_core", "spaces", "search")

ORDER = (
    "generalist_core.validation",
    "generalist_core.randomness",
    "generalist_core.config",
    "generalist_core.device",
    "generalist_core.data",
    "generalist_core.source_files",
    "generalist_core.once",
    "generalist_core.fingerprints",
    "generalist_core.user_code",
    "generalist_core.models",
    "generalist_core.attacks",
    "generalist_core.recording",
    "generalist_core.training",
    "generalist_core.evaluation",
    "spaces",
    "search.errors",
    "search.interruption",
    "search.streams",
    "search.wording",
    "search.folders",
    "search.files",
    "search.lease",
    "search.config",
    "search.front",
    "search.study",
    "search.scheduling",
    "search.running",
    "search.report",
    "search.monitoring",
    "search.callbacks",
    "search.api",
    "search.cli",
)
"""Each part imports only those before it."""

STRANGERS = [("generalist_core.evaluation", "generalist_core.training")]
"""Parts that do not know each other."""

ONLY_IN = {
    "ray": {
        "search/running/ray_cluster.py",
        "search/running/ray_heartbeats.py",
        "search/running/ray_trainable.py",
        "search/running/ray_tuner.py",
    },
    "optuna": {"search/study", "search/report/importance.py"},
    "sqlalchemy": {"search/study/storage.py"},
    "pandas": {"search/study"},
    "moocore": {"search/front", "search/study", "search/scheduling", "search/report"},
    "matplotlib": {"search/report/plots.py", "search/monitoring/tensorboard.py"},
    "plotly": {"search/report"},
    "tensorboard": {"search/monitoring"},
    "click": {"search/cli"},
    "rich": {"search/monitoring", "search/report", "search/running", "search/api", "search/cli"},
}
"""The folders and files that may import a library."""

TORCH_FREE = ("generalist_core.validation", "generalist_core.config", "spaces", "search.config")

MAX_MODULES = 15
"""The most files in one folder."""


def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """The module and the name of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            yield from ((str(node.module), alias.name) for alias in node.names)


@functools.cache
def defining(module: str, name: str) -> str | None:
    """Our module that an import loads, through packages that pass names on; None for others."""
    known = modules()
    if f"{module}.{name}" in known:
        return f"{module}.{name}"
    if module not in known:
        return None
    passed_on = {n: m for m, n in imports(known[module])}
    is_package = known[module].name == "__init__.py"
    return (defining(passed_on[name], name) if is_package and name in passed_on else None) or module


@functools.cache
def graph() -> nx.DiGraph:
    """An edge from each module to every one that it imports."""
    edges = nx.DiGraph()
    edges.add_nodes_from(modules())
    for importer, path in modules().items():
        for module, name in imports(path):
            imported = defining(module, name)
            if imported is not None and path.name != "__init__.py":
                edges.add_edge(importer, imported)
    return edges


def part_of(module: str) -> str | None:
    """The part in `ORDER` that a module belongs to."""
    return next((part for part in ORDER if f"{module}.".startswith(f"{part}.")), None)


def test_there_is_no_circle_of_modules() -> None:
    assert [circle for circle in nx.strongly_connected_components(graph()) if len(circle) > 1] == []


def test_every_module_belongs_to_a_part() -> None:
    outside = {module for module in modules() if part_of(module) is None}
    assert outside == {"generalist_core", "search", "search.__main__"}


def test_each_part_imports_only_those_before_it() -> None:
    for importer, imported in graph().edges:
        above, below = part_of(importer), part_of(imported)
        if above is not None and below is not None:
            assert ORDER.index(below) <= ORDER.index(above), f"{importer} imports {imported}"


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_parts_that_do_not_know_each_other(one: str, other: str) -> None:
    for importer, imported in graph().edges:
        assert {part_of(importer), part_of(imported)} != {one, other}, f"{importer}: {imported}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in modules().values()
        if any(module.split(".")[0] == library for module, _ in imports(path))
    }
    places = ONLY_IN[library]
    assert {file for file in found if not any(file.startswith(place) for place in places)} == set()
    assert all(any(file.startswith(place) for file in found) for place in places)


def test_what_is_free_of_torch_imports_only_the_same() -> None:
    """Configurations, spaces and the command line's help must not wait for torch."""
    for module, path in modules().items():
        if not module.startswith(TORCH_FREE):
            continue
        at_run_time = path.read_text(encoding="utf-8").partition("if TYPE_CHECKING:")[0]
        tops = {name.split(".")[0] for name in top_level_imports(at_run_time)}
        assert not tops & {"torch", "torchvision", "ray", "optuna"}, module


def top_level_imports(text: str) -> Iterator[str]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)


def test_no_folder_holds_too_many_modules() -> None:
    folders = [path.parent for path in modules().values()]
    assert max(map(folders.count, folders)) <= MAX_MODULES


def test_every_folder_says_what_it_is_for() -> None:
    for path in modules().values():
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


TESTED_ELSEWHERE = {
    "generalist_core.models.convnet",
    "generalist_core.models.preact_resnet",
    "generalist_core.models.resnet",
    "generalist_core.models.wide_resnet",
    "generalist_core.training.abstract_trainer",
    "search.cli.printing",
    "search.errors",
    "search.folders",
}
"""Modules without a test file of their name: the tests of those that use them check them."""


def test_every_other_module_has_a_test_file_of_its_name() -> None:
    files = {name: path.relative_to(ROOT) for name, path in modules().items()}
    untested = {
        name
        for name, path in files.items()
        if not path.name.startswith("__")
        and not (ROOT / "tests" / path.parent / f"test_{path.name}").exists()
    }
    assert untested == TESTED_ELSEWHERE


def test_no_test_file_imports_another() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        imported = {module.rpartition(".")[2] for module, _ in imports(path) if "tests." in module}
        assert not any(name.startswith("test_") for name in imported), path


def test_a_lazy_import_is_seen(tmp_path: Path) -> None:
    """The tests above would notice."""
    (tmp_path / "file.py").write_text("def f():\n    from search.api.sweep import sweep\n")
    assert list(imports(tmp_path / "file.py")) == [("search.api.sweep", "sweep")]
    assert defining("generalist_core.config", "PGD") == "generalist_core.config.attacks"
    assert ("search.api.sweep", "search.study.folder") in graph().edges
