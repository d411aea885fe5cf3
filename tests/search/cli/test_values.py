"""What texts on the command line mean, and which are refused."""

from __future__ import annotations

import functools
from typing import Any

import click
import pytest

from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at, value_at
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.cli.values import written_value
from tests.helpers.command_line import parse


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.03", 0.03), (" 8 / 255 ", 8 / 255), ("1e-3", 1e-3)]
)
def test_a_radius_may_be_a_fraction(text: str, value: float) -> None:
    options = parse(["sweep", "--epsilon", text, "--out", "out"]).params
    assert options["problem__epsilon"] == value


@pytest.mark.parametrize("text", ["8/0", "8/", "/255", "8/255/2", "1.2.3/5", "eight", ""])
def test_what_is_no_radius_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(click.BadParameter, match="8/255, but got"):
        parse(["sweep", "--epsilon", text, "--out", "out"])


def built_as_it_is(assignment: str) -> TrainConfig:
    """Without the check that a model's file exists."""
    path, _, text = assignment.partition("=")
    return replace_at(short(), path, functools.partial(written_value, text))


WRITTEN: dict[str, list[tuple[str, object]]] = {
    "model.name": [
        (text, text)
        for text in (
            *("2024/05", "8/255", "2024", "-1", "1e5", "0.5", "NaN", "true", "True", "None"),
            *("null", "2024-05-01", "[1]", "{}", "a/b", "a=b", "", " x ", "../x", "~", "\u00e9"),
        )
    ]
    + [('"resnet18"', "resnet18"), ('"2024/05"', "2024/05")],
    "device": [("0", "0"), ("cpu", "cpu")],
    "precision": [("float64", "float64"), ('"float64"', "float64")],
    "data.n_train": [("300", 300), ("null", None)],
    "data.flip": [("true", True), ("false", False)],
    "experts.robust.attack.epsilon": [("8/255", 8 / 255), ("0.03", 0.03), ("1e-2", 0.01)],
    "evaluation.release_ratios.1": [("1/4", 0.25), ("0.3", 0.3)],
    "model.mean": [("null", None)],
    "mixing.ratio.knots": [("[0.0, 1]", (0.0, 1.0))],
    "experts.natural.optimizer": [("AdamW", "AdamW"), ('{"type": "Adam"}', "Adam")],
    "experts.robust.attack": [('{"type": "FGSM", "epsilon": 0.1}', "FGSM")],
}
"""By field, what may be written for it, and what that is."""

MISWRITTEN = {
    "epochs": ["8/4", "8.0", "1e1", "true", "'8'", '"8"', "None", "", "8 epochs", "9" * 5000],
    "experts.robust.attack.epsilon": ["8/0", "NaN", "Infinity", "true", '"0.1"', "null", "[0.1]"],
    "data.n_train": ["None", "100/1", "1e2", "false"],
    "data.flip": ["1", "True", "yes", "null", '"true"'],
    "precision": ["null", "32", "float16"],
    "experts.natural.optimizer": ["null", "adamw", "1/2", "true", "[" * 100_000],
    "model.mean": ["0.5", "1/2", "None", '["a"]', "[NaN]", "[true]"],
    "evaluation.release_ratios.1": ["null", "half", "true", "NaN"],
    "evaluation.release": ["null", "1/2", "true"],
}
"""By field, what is no value of it, though it may look like one."""


@pytest.mark.parametrize(
    ("path", "text", "value"), [(path, *pair) for path, pairs in WRITTEN.items() for pair in pairs]
)
def test_a_text_is_what_its_field_takes(path: str, text: str, value: object) -> None:
    found = value_at(built_as_it_is(f"{path}={text}"), path)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("path", "text"), [(path, text) for path, texts in MISWRITTEN.items() for text in texts]
)
def test_a_text_that_is_no_value_of_its_field_is_refused(path: str, text: str) -> None:
    with pytest.raises(InvalidConfigError, match="must"):
        built_as_it_is(f"{path}={text}")


@pytest.mark.parametrize(
    ("text", "norms"),
    [
        ("linf,l2", {"linf": None, "l2": None}),
        ("linf=8/255,l1", {"linf": 8 / 255, "l1": None}),
    ],
)
def test_norms_are_written_with_or_without_radii(text: str, norms: dict[str, Any]) -> None:
    assert parse(["sweep", "--norms", text, "--out", "out"]).params["training__norms"] == norms


@pytest.mark.parametrize("text", ["", "l3", "linf,linf", "linf,", "linf=", "linf=x", "linf;l2"])
def test_what_are_no_norms_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"8/255.*but got"):
        parse(["sweep", "--norms", text, "--out", "out"])
