"""The parameters that a space can ask for are known before any trial."""

from __future__ import annotations

import optuna
import pytest
from optuna.samplers import RandomSampler

from generalist_core.config import TrainConfig
from generalist_core.config.presets import short
from spaces import SPACES, Trial
from spaces.parameters import Range, explored, parameters_of_space, with_seen


@pytest.mark.parametrize("name", SPACES)
def test_no_trial_has_a_parameter_that_was_not_found(name: str) -> None:
    parameters = parameters_of_space(SPACES[name], short())
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    asked: set[str] = {"release_ratio.1"}
    for _ in range(60):
        trial = study.ask()
        SPACES[name](trial, short())
        asked |= trial.params.keys()
    assert asked == parameters.keys()


def test_choices_are_all_that_were_offered() -> None:
    parameters = parameters_of_space(SPACES["experts"], short())
    assert parameters["experts.robust.optimizer"] == ("SGD", "AdamW", "Adam", "RMSprop")
    assert parameters["experts.robust.optimizer.Adam.lr"] == ()


def test_a_space_that_fails_at_times_shows_what_it_asked_until_then() -> None:
    def failing(trial: Trial, base: TrainConfig) -> TrainConfig:
        if trial.suggest_categorical("kind", ["good", "bad"]) == "bad":
            trial.suggest_float("deep", 0, 1)
            raise ZeroDivisionError
        return base

    parameters = parameters_of_space(failing, short())
    assert parameters == {"release_ratio.1": (), "kind": ("good", "bad"), "deep": ()}


def test_a_space_is_explored_at_its_steps() -> None:
    def stepping(trial: Trial, base: TrainConfig) -> TrainConfig:
        depth = {2: "deep", 5: "wide"}[trial.suggest_int("depth", 2, 7, step=3)]
        rate = {0.1: "slow", 0.3: "fast"}[trial.suggest_float("rate", 0.1, 0.3, step=0.2)]
        trial.suggest_categorical(f"{depth}.{rate}", choices=[3, 2.5, False, None])
        return base

    parameters = parameters_of_space(stepping, short())
    kinds = {name for name in parameters if name.partition(".")[0] in ("deep", "wide")}
    assert kinds == {"deep.slow", "deep.fast", "wide.slow", "wide.fast"}
    assert parameters["deep.slow"] == (3, 2.5, False, None)


def test_a_range_is_as_wide_as_all_that_was_asked() -> None:
    def dependent(trial: Trial, base: TrainConfig) -> TrainConfig:
        end = {"short": 3, "long": 9}[trial.suggest_categorical("length", ["short", "long"])]
        trial.suggest_int("start", 0, end)
        trial.suggest_float("rate", 0.1, 10, log=True)
        return base

    assert explored(dependent, short()).ranges == {
        "release_ratio.1": Range(0.0, 1.0, None, log=False),
        "start": Range(0, 9, 1, log=False),
        "rate": Range(0.1, 10, None, log=True),
    }


def test_a_truth_value_that_only_a_trial_had_is_a_choice() -> None:
    assert with_seen({}, {"flip": True, "n": 3, "none": None}) == {
        "flip": (True,),
        "n": (),
        "none": (None,),
    }


def test_what_only_a_trial_had_is_added() -> None:
    known = with_seen({"kind": ("a", "b")}, {"kind": "a", "rare": "x", "lr": 0.1})
    assert known == {"kind": ("a", "b"), "rare": ("x",), "lr": ()}
