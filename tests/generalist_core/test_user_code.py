"""Functions that users name, and the files that they are held to."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from generalist_core.config import CrossEntropy, CustomAttack, CustomLoss
from generalist_core.fingerprints import file_digest
from generalist_core.user_code import (
    absolute_name,
    callable_name,
    has_custom,
    load_callable,
    load_pinned,
    running_user_code,
)
from generalist_core.validation import InvalidConfigError
from tests.helpers import custom_functions


def test_a_function_is_found_by_file_or_module(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def answer():\n    return 42\n")
    assert load_callable(f"{file}:answer", what="space")() == 42
    assert load_callable("math:sqrt", what="space") is importlib.import_module("math").sqrt


def test_only_the_path_of_a_file_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_name("my code/mine.py:f") == f"{tmp_path}/my code/mine.py:f"
    for name in ("/else/mine.py:f", "package.module:f", "convnet", "torchvision:alexnet"):
        assert absolute_name(name) == name


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


def test_a_function_has_a_name_if_it_is_at_the_top_of_a_file() -> None:
    assert (
        callable_name(custom_functions.pgd) == f"{Path(custom_functions.__file__).absolute()}:pgd"
    )
    with pytest.raises(InvalidConfigError, match="top of a file"):
        callable_name(lambda x: x)


def test_a_pinned_function_is_loaded_only_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def answer():\n    return 42\n")
    name, digest = f"{file}:answer", file_digest(file)
    assert load_pinned(name, digest)() == 42
    with pytest.raises(InvalidConfigError, match=r"must be as it was.*Put the file back"):
        load_pinned(name, "0" * 64)


@pytest.mark.parametrize("raised", [ZeroDivisionError("by\nzero"), KeyError("x"), TypeError()])
def test_an_error_in_user_code_is_told_with_its_place(raised: Exception) -> None:
    with (
        pytest.raises(InvalidConfigError, match=r"`mine` must run, but .*test_user_code\.py, line"),
        running_user_code("mine"),
    ):
        raise raised


@pytest.mark.parametrize("raised", [InvalidConfigError("a law"), FileNotFoundError("a file")])
def test_errors_that_explain_themselves_pass(raised: Exception) -> None:
    with pytest.raises(type(raised), match=str(raised)), running_user_code("mine"):
        raise raised


def test_custom_parts_are_known() -> None:
    attack = CustomAttack(function="mine.py:f", epsilon=0.1, forward_images=1)
    assert has_custom(CrossEntropy(), attack)
    assert has_custom(CustomLoss(function="mine.py:f"))
    assert not has_custom(CrossEntropy(), None)
