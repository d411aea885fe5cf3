"""The pages: links lead somewhere, commands are accepted, Python can be read, the site builds."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from search.cli.main import program
from tests import ROOT
from tests.helpers.command_line import parse

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
SCRIPTS = sorted((ROOT / "examples").glob("*.sh"))
OURS = ("generalist_core", "spaces", "search", "benchmarks", "tests")

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", text)


def commands(text: str, program: str) -> list[list[str]]:
    """The arguments of every `program` in shell text, lines joined over backslashes."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(rf"(?m)^\s*(?:exec )?{program} (.*)$", joined)
    found = [shlex.split(line, comments=True) for line in lines]
    return [[word for word in words if word not in ("$@", "&")] for words in found]


def parsed(arguments: list[str]) -> str:
    """The name of the command, if the command line accepts it."""
    try:
        return str(parse(arguments).command.name)
    except click.UsageError as error:
        raise AssertionError(f"generalist-search {shlex.join(arguments)}") from error


def shell_of(path: Path) -> str:
    text = path.read_text()
    return text if path.suffix == ".sh" else "\n".join(blocks(text, "sh"))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    heads = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", path.read_text()))
    kept = [re.sub(r"[^\w\s-]", "", re.sub(r"[`*]|\[|\]\(.*?\)", "", head)) for head in heads]
    return {re.sub(r"\s+", "-", head.strip().lower()) for head in kept}


@each_page
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", path.read_text())
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        place, _, anchor = target.partition("#")
        linked = (path.parent / place) if place else path
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_command_line_accepts_every_command(path: Path) -> None:
    for arguments in commands(shell_of(path), r"(?:\S*/)?generalist-search"):
        if "--help" not in arguments:
            assert parsed(arguments) == arguments[0]


@each_page
def test_every_module_that_is_run_exists(path: Path) -> None:
    for name in re.findall(r"python3? -m\s+([\w.]+)", path.read_text()):
        assert importlib.util.find_spec(name), name


@each_page
def test_every_make_target_exists(path: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    text = path.read_text()
    named = re.findall(r"`make ([a-z-]+)`", text) + re.findall(r"(?m)^make ([a-z-]+)", text)
    assert set(named) <= targets


@each_page
def test_python_can_be_read_and_imports_what_there_is(path: Path) -> None:
    for block in blocks(path.read_text(), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in OURS:
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"(?m): ([\w/]+\.md)$", text))
    assert listed == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_the_page_of_the_command_line_is_as_the_commands_are() -> None:
    """Write it again by `make docs`."""
    place = importlib.util.spec_from_file_location("commands", DOCS / "commands.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert page == module.reference()
    assert re.findall(r"(?m)^## (.*)$", page) == list(program.commands)
    for made in program.commands.values():
        options = [p.opts[0] for p in made.params if isinstance(p, click.Option)]
        part = page.split(f"\n## {made.name}\n")[1].split("\n## ")[0]
        assert [option for option in options if f"- `{option}" not in part] == []


def test_the_site_takes_nothing_from_other_hosts() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert config["theme"]["font"] is False
    sources = [*config["extra"]["polyfills"], *config["extra_css"]]
    assert all((DOCS / source).is_file() for source in sources)


def test_commands_are_found() -> None:
    text = "```sh\n.venv/bin/generalist-search front \\\n    A  # why\n```\n"
    shell = "\n".join(blocks(text, "sh"))
    assert commands(shell, r"(?:\S*/)?generalist-search") == [["front", "A"]]
    with pytest.raises(AssertionError, match="no-such"):
        parsed(["front", "A", "--no-such"])
    found = [words for path in PAGES for words in commands(shell_of(path), "generalist-search")]
    assert len(found) > 30


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?:[^\s\">]+)",
            page.read_text(),
        )
        assert loaded == [], page
