"""The grammar of errors: the law as a clause, then what was found, then the cure."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests import ROOT

PACKAGES = ("generalist_core", "spaces", "search")
BORDER = ("InvalidConfigError", "EvaluationError", "SweepFolderError", "ExportError")
"""Errors that tell a user which law was broken."""


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """The calls of functions of these names, with their places."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def literal(node: ast.expr, placeholder: str) -> str | None:
    """The text of a string, its formatted parts replaced; None if it is a variable."""
    if isinstance(node, ast.JoinedStr):
        parts = (literal(part, placeholder) for part in node.values)
        return "".join(placeholder if part is None else part for part in parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return "".join(
            literal(part, placeholder) or placeholder for part in (node.left, node.right)
        )
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def is_expression(law: str) -> bool:
    """Whether a law can be read as a comparison, or as several."""
    try:
        parsed = ast.parse(law, mode="eval").body
    except SyntaxError:
        return False
    return isinstance(parsed, ast.Compare | ast.BoolOp)


def test_every_required_law_is_an_expression() -> None:
    """What is no expression is a sentence, and is raised where its test stands."""
    laws = {place: literal(call.args[1], "x") for place, call in calls("require")}
    assert len(laws) > 20
    assert {place: law for place, law in laws.items() if law and not is_expression(law)} == {}
    assert [place for place, law in laws.items() if law is None] == []


def test_every_error_at_the_border_says_what_must_hold() -> None:
    messages = {place: literal(call.args[0], "...") for place, call in calls(*BORDER) if call.args}
    assert len(messages) > 50
    assert {
        place: message
        for place, message in messages.items()
        if message is not None and not (" must " in message or message.count("...") > 1)
    } == {}


@pytest.mark.parametrize(
    ("law", "holds"),
    [
        ("low <= high", True),
        ("0 <= x < 1 and y > 0", True),
        ("one std a mean", False),
        ("x", False),
    ],
)
def test_an_expression_is_told_from_a_phrase(law: str, holds: bool) -> None:
    assert is_expression(law) == holds
