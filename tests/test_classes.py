"""Classes are abstract or final: what a subclass overrides is abstract, or a hook that is empty."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests import ROOT

PACKAGES = ("generalist_core", "spaces", "search", "benchmarks")


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Every class of the project, with its file."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    yield str(path.relative_to(ROOT)), node


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}


def is_open(method: ast.FunctionDef) -> bool:
    """Whether a method is abstract, or does nothing but say what it is for."""
    is_abstract = any("abstractmethod" in ast.unparse(d) for d in method.decorator_list)
    body = method.body[1:] if ast.get_docstring(method) is not None else method.body
    return is_abstract or not body


def overridden(found: list[tuple[str, ast.ClassDef]]) -> set[str]:
    """The methods that a class of ours overrides although a base of ours implements them."""
    known = {node.name: node for _, node in found}
    broken = set()
    for file, node in found:
        for base in (known[name] for b in node.bases if (name := ast.unparse(b)) in known):
            for name in methods(node).keys() & methods(base).keys():
                if not name.startswith("__") and not is_open(methods(base)[name]):
                    broken.add(f"{file}: {node.name}.{name}")
    return broken


def test_no_class_overrides_what_another_implements() -> None:
    found = list(classes())
    assert len(found) > 80
    assert overridden(found) == set()


def test_an_override_is_seen() -> None:
    module = ast.parse(
        "class A:\n    def f(self): return 1\n    def g(self):\n        'A hook.'\n"
        "class B(A):\n    def f(self): return 2\n    def g(self): return 3\n"
    )
    found = [("file.py", node) for node in module.body if isinstance(node, ast.ClassDef)]
    assert overridden(found) == {"file.py: B.f"}
