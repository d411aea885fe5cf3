"""Every field of every configuration is checked by its annotation."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generalist_core import config as configs
from generalist_core import short
from generalist_core.config import (
    PGD,
    SGD,
    TRADES,
    Constant,
    Cosine,
    DataConfig,
    InvalidConfigError,
    MixingConfig,
    ModelConfig,
    PiecewiseLinear,
    RatioSchedule,
    SyncConfig,
)
from generalist_core.config.suite import SuiteConfig
from tests.helpers.fields import acceptance_of_own, cases, refusal_of_others

REQUIRED: dict[str, dict[str, Any]] = {
    "CustomAttack": {"function": "a:b", "epsilon": 0.1, "forward_images": 3},
    "CustomLoss": {"function": "a:b"},
    "EarlierSettings": {"until": 1},
    "EvaluationConfig": {"attacks": short().evaluation.attacks},
    "ExpertConfig": {"name": "natural"},
    "FGSM": {"epsilon": 0.1},
    "MultiTargeted": {"epsilon": 0.1},
    "NFGSM": {"epsilon": 0.1},
    "NamedAttack": {"name": "pgd", "attack": PGD(epsilon=0.1)},
    "PGD": {"epsilon": 0.1},
    "PiecewiseLinear": {"knots": (0.0, 1.0), "values": (1.0, 0.0)},
    "SeveralAttacks": {"parts": (PGD(epsilon=0.1), PGD(epsilon=0.5, norm="l2"))},
    "SuiteConfig": {"norm": "linf", "epsilon": 0.1},
    "TrainConfig": {"experts": short().experts, "evaluation": short().evaluation},
}
"""What each class cannot be built without."""

CLASSES = (
    *(kind for name in configs.__all__ if dataclasses.is_dataclass(kind := getattr(configs, name))),
    SuiteConfig,
)

test_a_value_of_another_type_is_refused = refusal_of_others(CLASSES, REQUIRED)
test_the_own_value_is_accepted = acceptance_of_own(CLASSES, REQUIRED)


def test_every_configuration_is_checked() -> None:
    assert len(CLASSES) > 20
    assert len(cases(CLASSES)) > 100


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PGD(epsilon=0.1, steps=2.5), "`steps` must be a whole number, but got steps=2.5"),  # type: ignore[arg-type]
        (lambda: SyncConfig(start_epoch=1.5), "`start_epoch` must be a whole number"),  # type: ignore[arg-type]
        (lambda: DataConfig(n_validation="5"), "got n_validation=.5."),  # type: ignore[arg-type]
        (lambda: MixingConfig(decay=math.nan), "`decay` must be a finite number"),
        (lambda: TRADES(beta=math.inf), "`beta` must be a finite number, but got beta=inf"),
        (lambda: Cosine(final=math.nan), "`final` must be a finite number"),
        (lambda: Constant(per_step=1), "`per_step` must be True or False"),  # type: ignore[arg-type]
        (
            lambda: PiecewiseLinear(knots=(0.0, 1.0), values=(1.0, math.nan)),
            r"`values\[1\]` must be a finite number, but got values\[1\]=nan",
        ),
        (
            lambda: RatioSchedule(knots=(0.0, 1.0), values=(0.5, (0.5, math.inf))),
            r"`values\[1\]\[1\]` must be a finite number",
        ),
        (lambda: ModelConfig(mean=0.5, std=0.5), "`mean` must be a tuple"),  # type: ignore[arg-type]
        (
            lambda: SuiteConfig(norm="linf", epsilon=0.1, attacks="pgd-20"),  # type: ignore[arg-type]
            "`attacks` must be a tuple, but got attacks='pgd-20'",
        ),
    ],
)
def test_the_message_names_the_field_and_its_value(build: Any, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        build()


@pytest.mark.parametrize("whole", [np.int64(7), np.uint8(7), np.int32(7)])
def test_whole_numbers_of_numpy_become_ints(whole: Any) -> None:
    attack = PGD(epsilon=whole / whole, steps=whole)
    assert attack == PGD(epsilon=1.0, steps=7)
    assert (type(attack.steps), type(attack.epsilon)) == (int, float)


def test_floats_of_numpy_and_lists_become_plain() -> None:
    assert type(SGD(lr=np.float32(0.5)).lr) is float  # type: ignore[arg-type]
    schedule = PiecewiseLinear(knots=[np.float64(0), 1], values=[np.int64(1), 0.0])  # type: ignore[arg-type]
    assert schedule == PiecewiseLinear(knots=(0.0, 1.0), values=(1.0, 0.0))
    assert [type(value) for value in schedule.values] == [float, float]
    assert type(Constant(per_step=np.bool_(True)).per_step) is bool  # type: ignore[arg-type]


def test_what_is_given_as_an_int_stays_one() -> None:
    assert repr(TRADES(beta=6)) == "TRADES(beta=6)"


def test_a_path_is_stored_as_text() -> None:
    assert DataConfig(root=Path("data")).root == "data"  # type: ignore[arg-type]
