"""How numbers are written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from search.wording import command_text, duration, plural, printable, value_text


def test_only_one_is_singular() -> None:
    assert [plural(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]


def test_words_of_a_command_are_quoted_where_a_shell_needs_it() -> None:
    text = command_text("front", Path("my runs/it's"), "--pick", "natural>=0.8")
    assert shlex.split(text) == ["front", "my runs/it's", "--pick", "natural>=0.8"]
    assert command_text("resume", Path("/runs/digits")) == "resume /runs/digits"


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.1235"), (1e-7, "1e-07"), (100000, "100000"), (True, "True")]
)
def test_only_fractions_are_rounded(value: object, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (2 * 86400, "2.0 d")],
)
def test_a_unit_fits_at_least_twice(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b\tc\nd", "a b\tc\nd"),
        ("naïve 测试 🙂", "naïve 测试 🙂"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\rb\x9bc\x7f", "a\\rb\\x9bc\\x7f"),
        ("\u202egnp.exe\u2028", "\\u202egnp.exe\\u2028"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
