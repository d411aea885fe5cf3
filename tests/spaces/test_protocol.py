"""What is suggested is set at the path that names it."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import optuna
import pytest

from generalist_core.config import AdamW, TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from spaces import Space, Trial, paper_suggestion, tune_choice, tune_float, tune_int
from spaces.protocol import configuration_of, on_grid


def test_suggestions_are_set_at_their_paths_and_nowhere_else() -> None:
    trial = optuna.trial.FixedTrial(
        {"mixing.decay": 0.7, "sync.every_epochs": 3, "experts.robust.optimizer": "AdamW"}
    )
    config = tune_float(trial, short(), "mixing.decay", 0.5, 0.9)
    config = tune_int(trial, config, "sync.every_epochs", 1, 5)
    config = tune_choice(trial, config, "experts.robust.optimizer", ["SGD", "AdamW"])
    assert config.mixing.decay == 0.7
    assert config.sync.every_epochs == 3
    assert config.experts[1].optimizer == AdamW()
    assert config.experts[0] == short().experts[0]
    assert config.data == short().data


def fails(error: Exception) -> Space:
    def space(trial: Trial, base: TrainConfig) -> TrainConfig:
        raise error

    return space


ERRORS = [
    ValueError("not wanted"),
    optuna.TrialPruned("not wanted"),
    FileNotFoundError(2, "not wanted"),
    KeyError("not wanted"),
    AssertionError("not wanted"),
]


@pytest.mark.parametrize("error", ERRORS, ids=[type(error).__name__ for error in ERRORS])
def test_whatever_a_space_raises_is_told_with_its_place(error: Exception) -> None:
    law = rf"`space .*:space` must run, but {type(error).__name__}: .*not wanted.*test_protocol\.py"
    with pytest.raises(InvalidConfigError, match=law):
        configuration_of(fails(error), optuna.trial.FixedTrial({}), short())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "many"}, "`epochs` must be a whole number"),
        ({"batch_size": np.float64(32.5)}, "`batch_size` must be a whole number"),
        ({"experts": short().experts[0]}, "experts"),
        ({"precision": "float16"}, "precision"),
    ],
)
def test_a_value_of_a_wrong_type_is_no_configuration(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        configuration_of(
            lambda _, base: dataclasses.replace(base, **change),
            optuna.trial.FixedTrial({}),
            short(),
        )


def test_numbers_of_numpy_become_plain_where_they_are_fractions() -> None:
    made = configuration_of(
        lambda _, base: dataclasses.replace(
            base, mixing=dataclasses.replace(base.mixing, decay=np.float64(0.5))
        ),
        optuna.trial.FixedTrial({}),
        short(),
    )
    assert type(made.mixing.decay) is float
    assert made == replace_at(short(), "mixing.decay", 0.5)


@pytest.mark.parametrize("step", [0.1, 0.25, 0.3, 1e-3])
def test_the_grid_is_that_of_optuna(step: float) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not divisible")
        drawn = [study.ask().suggest_float("x", 0.1, 1.3, step=step) for _ in range(30)]
    assert [on_grid(value, 0.1, 1.3, step) for value in drawn] == pytest.approx(drawn, abs=1e-15)
    assert [on_grid(value + step / 3, 0.1, 1.3, step) for value in drawn] == pytest.approx(drawn)


def test_suggestions_have_steps() -> None:
    trial = optuna.trial.FixedTrial({"mixing.decay": 0.7, "batch_size": 96})
    config = tune_float(trial, short(), "mixing.decay", 0.5, 0.9, step=0.1)
    config = tune_int(trial, config, "batch_size", 32, 128, step=32)
    assert trial.distributions["mixing.decay"].step == 0.1
    assert trial.distributions["batch_size"].step == 32
    assert (config.mixing.decay, config.batch_size) == (0.7, 96)


def test_a_space_that_names_no_field_is_refused() -> None:
    def wrong(trial: Trial, base: TrainConfig) -> TrainConfig:
        return tune_float(trial, base, "mixing.gamma", 0, 1)

    with pytest.raises(InvalidConfigError, match=r"'gamma' in 'mixing\.gamma'"):
        paper_suggestion(wrong, short())
