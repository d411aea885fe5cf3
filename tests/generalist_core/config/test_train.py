"""Laws of an expert and of a whole training run."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from generalist_core.config import (
    FGSM,
    MART,
    PGD,
    TRADES,
    CustomAttack,
    EvaluationConfig,
    ExpertConfig,
    MixingConfig,
    MixUp,
    MultiTargeted,
    NamedAttack,
    RatioSchedule,
    SeveralAttacks,
    SyncConfig,
)
from tests.helpers.problems import NATURAL, ROBUST, SPARSE, three_experts, two_experts
from tests.helpers.refused import Broken, refusal_of

MARGIN = PGD(epsilon=0.1, loss="margin")

JUDGED = EvaluationConfig(attacks=(NamedAttack(name="robust", attack=FGSM(epsilon=0.1)),))

BROKEN: list[Broken] = [
    (two_experts, {"n_accumulations": 0}, "1 <= n_accumulations <= batch_size", "=0, batch_size=8"),
    (two_experts, {"n_accumulations": 9}, "1 <= n_accumulations <= batch_size", "=9, batch_size=8"),
    (ExpertConfig, {"name": "not a name"}, "identifier", "name='not a name'"),
    (ExpertConfig, {"name": "a.b"}, "identifier", "name='a.b'"),
    (ExpertConfig, {"name": "global"}, "global", "name='global'"),
    (ExpertConfig, {"name": "a", "label_smoothing": 1.0}, "label_smoothing < 1", "smoothing=1.0"),
    (
        ExpertConfig,
        {"name": "a", "attack": MultiTargeted(epsilon=0.1)},
        "must be one for training",
        "MultiTargeted(epsilon=0.1",
    ),
    (ExpertConfig, {"name": "a", "loss": TRADES()}, "TRADES and MART must have an attack", "'a'"),
    (ExpertConfig, {"name": "a", "loss": MART()}, "TRADES and MART must have an attack", "'a'"),
    *(
        (
            ExpertConfig,
            {"name": "a", "attack": PGD(epsilon=0.1), "batch_augmentation": MixUp(), **part},
            "`batch_augmentation` must be None with a loss or attack that needs one label",
            f"batch_augmentation=MixUp(alpha=0.2) and {got}",
        )
        for part, got in (
            ({"loss": MART()}, "MART(beta=5.0)"),
            ({"attack": MARGIN}, "PGD("),
            ({"attack": SeveralAttacks(parts=(PGD(epsilon=0.1), MARGIN))}, "PGD("),
            (
                {"attack": CustomAttack(function="a.py:f", epsilon=0.1, forward_images=1)},
                "CustomAttack(",
            ),
        )
    ),
    (two_experts, {"experts": (NATURAL,)}, "two or more experts", "['natural']"),
    (two_experts, {"experts": (NATURAL, NATURAL)}, "different names", "['natural', 'natural']"),
    (two_experts, {"epochs": 2}, "sync.start_epoch < epochs", "start_epoch=2, epochs=2"),
    (two_experts, {"epochs": 0, "sync": SyncConfig(start_epoch=0)}, "epochs > 0", "epochs=0"),
    (two_experts, {"batch_size": 0}, "batch_size > 0", "batch_size=0"),
    (two_experts, {"precision": "float16"}, "`precision` must be one of", "'float16'"),
    (
        two_experts,
        {"mixing": MixingConfig(ratio=RatioSchedule(values=(0.5, 1.5)))},
        "0 <= mixing_ratio <= 1",
        "mixing_ratio=1.5",
    ),
    (two_experts, {"experts": (NATURAL, ROBUST, SPARSE)}, "one weight per expert", "3 experts"),
    (
        two_experts,
        {"evaluation": dataclasses.replace(JUDGED, release_ratios=(-0.1,))},
        "0 <= mixing_ratio <= 1",
        "mixing_ratio=-0.1",
    ),
    (
        three_experts,
        {"evaluation": dataclasses.replace(JUDGED, release_ratios=((0.5, 0.5),))},
        "one weight per expert",
        "(0.5, 0.5) for 3 experts",
    ),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)


def test_the_ratio_holds_for_an_epoch() -> None:
    corners = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    mixing = MixingConfig(ratio=RatioSchedule(values=corners))
    config = three_experts(mixing=mixing, epochs=10)
    assert config.weights_at(3) == pytest.approx((0.7, 0.3, 0.0))


def test_equal_fields_make_equal_configurations() -> None:
    assert two_experts() == two_experts()
    assert len({two_experts(), two_experts()}) == 1
    different = [two_experts(), two_experts(seed=1), three_experts()]
    assert not any(a == b for a, b in itertools.combinations(different, 2))
