"""The configuration that options, a preset or a file make, and the limits that they change."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import click
import pytest

from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at, to_json, value_at
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.cli.main import main
from search.cli.options import (
    FailureOptions,
    ProblemOptions,
    ResourceOptions,
    TrainingOptions,
    build_config,
    written_value,
)
from search.config import Limits, Resources
from tests.helpers.command_line import parse
from tests.helpers.tiny import tiny_config


def test_a_config_file_and_fields_set_on_top(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(to_json(tiny_config()))
    options = ["--config", str(tmp_path / "config.json"), "--set", "mixing.decay=0.5"]
    options += ["--seed", "5", "--epochs", "3"]
    assert main(["train", *options, "--out", str(tmp_path / "run")]) == 0
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["epochs"], written["seed"], written["mixing"]["decay"]) == (3, 5, 0.5)
    assert "mixing ratio 1.0" in capsys.readouterr().out


def test_options_change_a_preset_and_fields_come_last() -> None:
    problem = ProblemOptions(data="mnist", width=3, epsilon=0.1, download=True)
    training = TrainingOptions(out=Path("out"), epochs=7, set=("epochs=9", "data.flip=true"))
    config = build_config(problem, training)
    assert (config.data.name, config.data.n_validation) == ("mnist", 1000)
    assert config.data.download
    assert config.data.flip
    assert (config.model.width, config.epochs) == (3, 9)
    assert Path(config.data.root).is_absolute()


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


def built(*assignments: str, **problem: Any) -> TrainConfig:
    training = TrainingOptions(out=Path("out"), set=assignments)
    return build_config(ProblemOptions(**problem), training)


def built_as_it_is(assignment: str) -> TrainConfig:
    """Without the check that a model's file exists."""
    path, _, text = assignment.partition("=")
    return replace_at(short(), path, functools.partial(written_value, text))


def test_fields_that_are_bound_together_are_set_together() -> None:
    config = built("model.mean=[0.5]", "model.std=[0.25]", "experts.robust.attack.epsilon=8/255")
    assert (config.model.mean, config.model.std) == ((0.5,), (0.25,))
    assert value_at(config, "experts.robust.attack.epsilon") == 8 / 255
    with pytest.raises(InvalidConfigError, match=r"mean.*std"):
        built("model.mean=[0.5]")


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


def test_a_folder_may_have_the_name_of_a_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024/05").mkdir(parents=True)
    assert (
        built("data.name=2024/05", "data.root=8/255").data
        == built(data="2024/05", data_root="8/255").data
    )


def test_three_experts_are_set_with_their_ratios() -> None:
    third = '{"name": "mild", "attack": {"type": "FGSM", "epsilon": 0.1}}'
    config = built(
        f'experts=[{{"name": "natural"}}, {third}, {third.replace("mild", "strong")}]',
        "mixing.ratio.values=[[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]",
        "evaluation.release_ratios=[[0.2, 0.3, 0.5]]",
        "evaluation.n_refinements=0",
        "experts.strong.attack.epsilon=0.2",
    )
    assert [expert.name for expert in config.experts] == ["natural", "mild", "strong"]
    assert value_at(config, "experts.2.attack.epsilon") == 0.2
    assert config.mixing.ratio.values[0] == (0.2, 0.3, 0.5)


def test_epochs_and_the_first_sync_of_a_file_are_set_together(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(to_json(tiny_config()))
    training = TrainingOptions(out=Path("out"), epochs=1, set=("sync.start_epoch=0",))
    config = build_config(ProblemOptions(config=file), training)
    assert (config.epochs, config.sync.start_epoch) == (1, 0)


def test_limits_and_resources_change_where_an_option_was_given() -> None:
    limits = Limits(trial_s=9.0, max_retries=1)
    assert FailureOptions().over(limits) == limits
    changed = FailureOptions(epoch_s=5.0, fail_fast=True, may_accumulate=True).over(limits)
    expected = Limits(trial_s=9.0, epoch_s=5.0, max_retries=1, max_failures=1, may_accumulate=True)
    assert changed == expected
    cluster = Resources(workers=8, address="auto", gpus_per_trial=0.5)
    assert ResourceOptions().over(cluster) == cluster
    assert ResourceOptions().over(cluster, local=True) == Resources(gpus_per_trial=0.5, local=True)
    assert ResourceOptions(workers=2).over(cluster).workers == 2
