"""What text refers to exists: modules, functions and files named in docstrings and pages."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from tests import ROOT

PACKAGES = ("generalist_core", "spaces", "search", "benchmarks")
FOLDERS = (*PACKAGES, "tests", "docs", "examples", "deploy")
TEXTS = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".md", ".jinja")
) + sorted(ROOT.glob("*.md"))
DOTTED = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?:\(.*?\))?`")
FILE = re.compile(rf"`((?:{'|'.join(FOLDERS)})(?:/[\w.-]+)+)`")


def exists(name: str) -> bool:
    """Whether a dotted name is a module of ours, or something in one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            fields = getattr(found, "__dataclass_fields__", {})
            if not hasattr(found, part) and part not in fields:
                return False
            found = getattr(found, part, None)
        return True
    return False


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_in_a_text_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert {name for name in DOTTED.findall(text) if not exists(name)} == set()
    assert {name for name in FILE.findall(text) if not (ROOT / name).exists()} == set()


def test_a_name_that_is_not_there_is_seen() -> None:
    assert exists("search.config.SweepConfig.base")
    assert not exists("search.config.SweepConfig.config")
    assert not exists("search.request")
    assert DOTTED.findall("see `search.front.pick.pick(front)`") == ["search.front.pick.pick"]
