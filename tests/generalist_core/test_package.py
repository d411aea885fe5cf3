"""The package as a whole: its public names, and what it loads."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import generalist_core
from tests import ROOT

FRAMEWORKS = {"ray", "optuna", "spaces", "search"}


def loaded_by(*packages: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after importing all modules."""
    names = [
        module.name
        for package in packages
        for module in pkgutil.walk_packages([str(ROOT / package.replace(".", "/"))], f"{package}.")
    ]
    code = f"import {', '.join(names)}, sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_configurations_and_spaces_load_without_torch_ray_or_optuna() -> None:
    loaded = loaded_by("spaces", "generalist_core.config")
    assert {"generalist_core", "spaces"} <= loaded
    assert not loaded & {"torch", "numpy", "ray", "optuna", "search"}


@pytest.mark.slow
def test_the_method_loads_without_ray_optuna_spaces_or_search() -> None:
    loaded = loaded_by("generalist_core")
    assert "torch" in loaded
    assert not loaded & FRAMEWORKS


def test_only_one_file_names_an_accelerator() -> None:
    sources = (ROOT / "generalist_core").rglob("*.py")
    assert [path.name for path in sources if '"cuda' in path.read_text()] == ["device.py"]


def test_everything_public_is_importable_and_sorted() -> None:
    for name in generalist_core.__all__:
        assert getattr(generalist_core, name).__name__ == name
    assert dir(generalist_core) == sorted(generalist_core.__all__)
    with pytest.raises(AttributeError, match="No generalist_core attribute Nothing"):
        _ = generalist_core.Nothing
