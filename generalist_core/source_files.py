"""Which source files belong to a file of the user's: itself, and what it imports beside it."""

from __future__ import annotations

import ast
import functools
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_OURS = tuple(_HERE.parent / name for name in (_HERE.name, "spaces", "search"))


def is_installed(path: Path) -> bool:
    """Whether a file belongs to Python, to an installed package or to this one."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in (*_OURS, *_python_folders()))


def source_files(path: Path) -> tuple[Path, ...]:
    """The file, then all files that it imports from its own folder, directly or not, sorted.

    Imports are read from the source: `import` and `from` anywhere in a file, and `import_module`
    with a literal name. Absolute names are sought in the folder of `path`, and in the folder that
    holds the package of the importing file. Installed files import nothing here.
    """
    path = path.absolute()
    folders = {path.parent, Path(os.path.realpath(path)).parent}
    found, left = {path}, [path]
    while left:
        new = set(_imported(left.pop(), folders)) - found
        found |= new
        left += new
    return path, *sorted(found - {path})


@functools.cache
def _python_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib"))


def _imported(file: Path, folders: set[Path]) -> Iterator[Path]:
    if is_installed(file) or file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # whoever runs the file reports it
    for node in ast.walk(tree):
        for level, name in _names(node):
            first = name.partition(".")[0]
            above = {parent.parent for parent in file.parents if parent.name == first}
            bases = {file.parents[level - 1]} if 0 < level <= len(file.parents) else folders | above
            for base in bases:
                yield from _modules(base, name)


def _names(node: ast.AST) -> Iterator[tuple[int, str]]:
    """The names that a node may import, each with its number of leading dots."""
    match node:
        case ast.Import(names=names):
            yield from ((0, alias.name) for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            prefix = f"{module}." if module else ""
            yield from ((level, prefix + alias.name) for alias in names)
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield len(name) - len(name.lstrip(".")), name.lstrip(".")


def _modules(base: Path, name: str) -> Iterator[Path]:
    """The files of a dotted name and of the packages that hold it, where they exist."""
    place = base
    for part in ("", *name.split(".")):
        place = place / part
        files = [place / "__init__.py"]
        if part:
            files.append(place.with_name(f"{part}.py"))
        yield from (file for file in files if file.is_file() and not is_installed(file))
