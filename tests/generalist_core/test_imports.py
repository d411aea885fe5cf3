"""The layers of DESIGN.md: who may import what; and functions that users name."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import generalist_core
from generalist_core.user_code import load_callable
from generalist_core.validation import InvalidConfigError

ROOT = Path(__file__).parents[2]
FRAMEWORKS = {"ray", "optuna", "spaces", "search"}
TORCH_FREE = {
    f"generalist_core.{name}"
    for name in ("codec", "config", "imports", "presets", "schedules", "validation")
}
TORCH_FREE |= {
    f"generalist_core.config.{path.stem}"
    for path in (ROOT / "generalist_core" / "config").glob("[a-z]*.py")
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            yield str(node.module)


def loaded_by(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after `statement`."""
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def modules(package: str) -> str:
    paths = [path.relative_to(ROOT).with_suffix("") for path in sources(package)]
    return ", ".join(".".join(path.parts).removesuffix(".__init__") for path in paths)


def test_the_method_imports_only_torch_numpy_and_scikit_learn() -> None:
    allowed = {*sys.stdlib_module_names, "generalist_core", "torch", "torchvision", "numpy"}
    found = {
        (path.name, name.partition(".")[0])
        for path in sources("generalist_core")
        for name in imported(path)
    }
    beyond = {(file, package) for file, package in found if package not in allowed}
    assert beyond == {("datasets.py", "sklearn")}


def test_spaces_import_only_the_configuration() -> None:
    allowed = {*sys.stdlib_module_names, "spaces"}
    assert sources("spaces")
    for path in sources("spaces"):
        for name in imported(path):
            assert name in TORCH_FREE or name.partition(".")[0] in allowed, (path.name, name)


def test_torch_free_modules_import_only_each_other() -> None:
    allowed = {*sys.stdlib_module_names}
    for module in TORCH_FREE:
        place = ROOT / module.replace(".", "/")
        for name in imported(place / "__init__.py" if place.is_dir() else place.with_suffix(".py")):
            assert name in TORCH_FREE or name.partition(".")[0] in allowed, (module, name)


def test_configurations_and_spaces_load_without_torch_ray_or_optuna() -> None:
    statement = f"import {modules('spaces')}, {', '.join(sorted(TORCH_FREE))}"
    loaded = loaded_by(statement)
    assert {"generalist_core", "spaces"} <= loaded
    assert not loaded & {"torch", "numpy", "ray", "optuna", "search"}


@pytest.mark.slow
def test_the_method_loads_without_ray_optuna_spaces_or_search() -> None:
    loaded = loaded_by(f"import {modules('generalist_core')}")
    assert "torch" in loaded
    assert not loaded & FRAMEWORKS


def test_only_one_file_names_an_accelerator() -> None:
    naming = [path.name for path in sources("generalist_core") if '"cuda' in path.read_text()]
    assert naming == ["device.py"]


def test_everything_public_is_importable_and_sorted() -> None:
    for name in generalist_core.__all__:
        assert getattr(generalist_core, name).__name__ == name
    assert generalist_core.__all__ == sorted(set(generalist_core.__all__))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = generalist_core.Nothing


def test_every_module_says_what_it_is() -> None:
    for path in sources("generalist_core"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_a_function_is_found_by_file_or_module(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def answer():\n    return 42\n")
    assert load_callable(f"{file}:answer", what="space")() == 42
    assert load_callable("math:sqrt", what="space") is importlib.import_module("math").sqrt


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("answer", "`space` must be a built-in name or FILE.py:FUNCTION, but got 'answer'"),
        ("nowhere.py:answer", "nowhere.py"),
        ("no_such_module:answer", "no_such_module"),
        ("math:answer", "There is no function 'answer' in math"),
        ("math:pi", "There is no function 'pi' in math"),
        ("math:", "There is no function '' in math"),
        (":answer", "':answer'"),
    ],
)
def test_a_function_that_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as error:
        load_callable(name, what="space")
    assert message in str(error.value)
