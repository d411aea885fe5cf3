"""Functions that users name, and the files that they are held to."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from generalist_core.config import ModelConfig
from generalist_core.fingerprints import file_digest
from generalist_core.user_code import (
    absolute_name,
    callable_name,
    function_digest,
    load_callable,
    load_pinned,
    pinned,
    require_unchanged,
    running_user_code,
)
from generalist_core.validation import InvalidConfigError
from tests.helpers import custom_functions
from tests.helpers.problems import two_experts


def test_a_function_is_found_by_file_or_module(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def answer():\n    return 42\n")
    assert load_callable(f"{file}:answer", what="space")() == 42
    assert load_callable("math:sqrt", what="space") is importlib.import_module("math").sqrt


def test_a_file_may_postpone_the_annotations_of_a_dataclass(tmp_path: Path) -> None:
    file = tmp_path / "postponed.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Answer:\n    value: int\n\ndef answer():\n    return Answer(42)\n"
    )
    made = load_callable(f"{file}:answer", what="space")()
    assert vars(made) == {"value": 42}
    assert "postponed" not in sys.modules


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


def test_what_a_file_imports_from_its_folder_is_pinned_with_it(tmp_path: Path) -> None:
    file, helper = tmp_path / "mine.py", tmp_path / "blocks.py"
    file.write_text("import blocks\n")
    helper.write_text("WIDTH = 1\n")
    digest = function_digest(f"{file}:answer")
    assert require_unchanged(f"{file}:answer", digest) == digest
    assert require_unchanged(f"{file}:answer", "") == digest
    helper.write_text("WIDTH = 2\n")
    with pytest.raises(InvalidConfigError, match=r"mine\.py:answer` must be as it was"):
        require_unchanged(f"{file}:answer", digest)


def test_a_custom_model_is_pinned_by_path_and_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text("def net(n_classes, shape): ...\n")
    monkeypatch.chdir(tmp_path)
    once = pinned(two_experts(model=ModelConfig(name="net.py:net")))
    assert once.model.name == f"{tmp_path}/net.py:net"
    assert once.model.digest == file_digest(tmp_path / "net.py")
    assert pinned(once) == once
    (tmp_path / "net.py").write_text("def net(n_classes, shape): pass\n")
    with pytest.raises(InvalidConfigError, match=r"net\.py:net` must be as it was"):
        pinned(once)
    (tmp_path / "net.py").unlink()
    with pytest.raises(InvalidConfigError, match="can be read"):
        pinned(once)


@pytest.mark.parametrize("name", ["convnet", "torchvision:resnet18", "nowhere"])
def test_models_that_no_function_makes_are_not_pinned(name: str) -> None:
    assert pinned(two_experts(model=ModelConfig(name=name))).model.digest == ""


@pytest.mark.parametrize("name", ["nowhere.py:net", "sys:exit", "nowhere.at:net"])
def test_a_function_without_a_file_that_can_be_read_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"file that can be read, but .*{name}' has none"):
        pinned(two_experts(model=ModelConfig(name=name)))


@pytest.mark.parametrize("line", ["1 / 0", "raise KeyError('x')", "def f(:"])
def test_a_package_that_fails_is_named(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_package").mkdir()
    (tmp_path / "failing_package" / "__init__.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidConfigError, match=r"`failing_package\.net` must be importable, but"):
        function_digest("failing_package.net:build")


def test_a_file_may_be_named_as_a_loaded_module(tmp_path: Path) -> None:
    """Its own names, here of ClassVar, are looked up in it and not in that module."""
    file, loaded = tmp_path / "json.py", sys.modules["json"]
    file.write_text(
        "from __future__ import annotations\nimport json\nfrom dataclasses import dataclass\n"
        "from typing import ClassVar as Shared\n"
        "@dataclass\nclass Answer:\n    value: int\n    kind: Shared[str] = 'one'\n\n"
        "def answer():\n    return Answer(json.loads('42'))\n"
    )
    assert vars(load_callable(f"{file}:answer", what="space")()) == {"value": 42}
    assert sys.modules["json"] is loaded
    assert "json_" not in sys.modules


def test_a_file_may_remove_its_own_module(tmp_path: Path) -> None:
    file = tmp_path / "shy.py"
    file.write_text("import sys\ndel sys.modules[__name__]\ndef answer():\n    return 42\n")
    assert load_callable(f"{file}:answer", what="space")() == 42


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


def test_weights_to_begin_from_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for path, cause in (
        (str(tmp_path), "Is a directory"),
        (str(tmp_path / "no.pt"), "No such file"),
        ("\0", "embedded null"),
        ("\ud800", ".*surrogates"),
    ):
        config = replace(two_experts(), model=ModelConfig(init=path))
        law = f"`init` .* weights, but got {re.escape(repr(path))}: {cause}"
        with pytest.raises(InvalidConfigError, match=law):
            pinned(config)
