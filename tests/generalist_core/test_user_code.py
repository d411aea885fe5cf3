"""Functions that users name, and the files that they are held to."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from generalist_core.user_code import load_callable
from generalist_core.validation import InvalidConfigError


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
        ("math:answer", "there is no function 'answer' in math"),
        ("math:pi", "there is no function 'pi' in math"),
        ("math:", "there is no function '' in math"),
        (":answer", "':answer'"),
    ],
)
def test_a_function_that_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as error:
        load_callable(name, what="space")
    assert message in str(error.value)
