"""What is suggested is set at the path that names it."""

from __future__ import annotations

import optuna
import pytest

from generalist_core.config import AdamW, TrainConfig
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from spaces import Trial, paper_suggestion, tune_choice, tune_float, tune_int


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


def test_a_space_that_names_no_field_is_refused() -> None:
    def wrong(trial: Trial, base: TrainConfig) -> TrainConfig:
        return tune_float(trial, base, "mixing.gamma", 0, 1)

    with pytest.raises(InvalidConfigError, match=r"'gamma' in 'mixing\.gamma'"):
        paper_suggestion(wrong, short())
