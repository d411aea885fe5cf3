"""A file of the user's comes with what it imports from its own folder, and with nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from generalist_core.source_files import is_installed, source_files

IMPORTS = {
    "import": ("import blocks", {"blocks.py"}),
    "import as": ("import torch, blocks as b", {"blocks.py"}),
    "from": ("from blocks import *", {"blocks.py"}),
    "inside a function": ("def f():\n    import blocks\n", {"blocks.py"}),
    "by name": ("import importlib\nx = importlib.import_module('blocks')", {"blocks.py"}),
    "transitively": ("import first", {"first.py", "second.py", "blocks.py"}),
    "a cycle": ("import round_", {"round_.py"}),
    "a package": ("import parts", {"parts/__init__.py"}),
    "a module of a package": ("import parts.a", {"parts/__init__.py", "parts/a.py"}),
    "from a package": ("from parts import a", {"parts/__init__.py", "parts/a.py"}),
    "within a package": (
        "from parts.b import B",
        {"parts/__init__.py", "parts/b.py", "parts/a.py", "blocks.py"},
    ),
    "a folder without __init__": ("from bare.c import C", {"bare/c.py", "bare/d.py"}),
    "a relative import": ("from .blocks import B", {"blocks.py"}),
    "by the name of its folder": ("from nets.blocks import B", {"blocks.py"}),
    "nothing": ("import torch, os.path\nfrom . import missing", set()),
    "what is no Python": ("import (", set()),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "blocks.py": "",
        "first.py": "import second",
        "second.py": "from blocks import B",
        "round_.py": "import net",
        "unused.py": "",
        "parts/__init__.py": "",
        "parts/a.py": "",
        "parts/b.py": "from . import a\nfrom ..blocks import B",
        "bare/c.py": "from bare.d import D",
        "bare/d.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "nets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "nets"


@pytest.mark.parametrize(("text", "wanted"), IMPORTS.values(), ids=IMPORTS)
def test_local_imports_are_found(text: str, wanted: set[str], folder: Path) -> None:
    (folder / "net.py").write_text(text)
    first, *others = source_files(folder / "net.py")
    assert first == folder / "net.py"
    assert {str(file.relative_to(folder)) for file in others} == wanted


def test_a_folder_at_the_root_may_be_named(tmp_path: Path) -> None:
    """Its package lies in /, which has no name of its own."""
    file = tmp_path / "net.py"
    file.write_text(f"import {tmp_path.parts[1]}.blocks")
    assert source_files(file) == (file,)


def test_installed_files_are_told_from_those_of_the_user(tmp_path: Path) -> None:
    import generalist_core

    for module in (ast, np, generalist_core):
        assert is_installed(Path(str(module.__file__)))
        assert source_files(Path(str(module.__file__))) == (Path(str(module.__file__)),)
    assert not is_installed(tmp_path / "net.py")
    assert not is_installed(Path(__file__))
