"""The numbers of a step by name: as floats, and as tensors that a recording reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from generalist_core.config import (
    FGSM,
    MART,
    NFGSM,
    PGD,
    TRADES,
    CrossEntropy,
    CustomAttack,
    MultiTargeted,
    SeveralAttacks,
)
from generalist_core.recording.numbers import (
    StepNumbers,
    live_numbers,
    of_expert,
    with_live,
)
from tests.helpers.problems import NORM_ATTACKS

NUMBERS = StepNumbers(
    first=3,
    columns={
        "natural/lr": [0.0, 0.5],
        "natural/weight": [0.0, 0.0],
        "natural/weight_decay": [0.0, 0.0],
        "robust/lr": [0.0, 0.0],
        "global": [0.125, 0.125],
    },
)
CPU = torch.device("cpu")

LIVE: dict[Any, set[str]] = {
    FGSM(epsilon=0.1): {"it.epsilon"},
    NFGSM(epsilon=0.1): {"it.epsilon", "it.noise_scale", "it.relative_step_size"},
    PGD(epsilon=0.1): {"it.epsilon", "it.relative_step_size"},
    MultiTargeted(epsilon=0.1): {"it.epsilon"},
    CustomAttack(function="m:f", epsilon=0.1, forward_images=1): {"it.epsilon"},
    SeveralAttacks(parts=NORM_ATTACKS[:2]): {
        f"it.parts.{i}.{name}" for i in range(2) for name in ("epsilon", "relative_step_size")
    },
    CrossEntropy(): set(),
    TRADES(): {"it.beta"},
    MART(): {"it.beta"},
    None: set(),
}


def test_a_step_has_its_row_without_weights_and_decays_that_are_zero() -> None:
    assert NUMBERS.names == ("natural/lr", "robust/lr", "global")
    assert NUMBERS.at(4) == {
        "natural/lr": 0.5,
        "natural/weight": 0.0,
        "natural/weight_decay": 0.0,
        "robust/lr": 0.0,
        "global": 0.125,
    }
    assert NUMBERS.table(CPU).tolist() == [[0.0, 0.0, 0.125], [0.5, 0.0, 0.125]]


def test_what_is_held_in_a_tensor_follows_it() -> None:
    values = torch.zeros(3)
    held = NUMBERS.held_in(values)
    values.copy_(NUMBERS.table(CPU)[1])
    assert {name: float(value) for name, value in held.items()} == NUMBERS.at(4)
    assert held["natural/weight"] == 0.0
    assert not isinstance(held["natural/weight"], torch.Tensor)


def test_an_expert_finds_its_own() -> None:
    assert of_expert(NUMBERS.at(3), "natural") == {
        "lr": 0.0,
        "weight": 0.0,
        "weight_decay": 0.0,
    }


@pytest.mark.parametrize("part", LIVE, ids=str)
def test_numbers_that_decide_nothing_are_read_and_written(part: Any) -> None:
    numbers = live_numbers(part, "it")
    assert numbers.keys() == LIVE[part]
    assert with_live(part, "it", numbers) == part
    others = dict(zip(numbers, range(10, 99), strict=False))
    changed = with_live(part, "it", others)
    assert live_numbers(changed, "it") == others
    assert live_numbers(part, "it") == numbers, "the original stays"
    assert with_live(changed, "it", numbers) == part
