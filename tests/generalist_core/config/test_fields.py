"""Every law of the configuration is stated with what broke it; schedules of a run by hand."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from generalist_core import config as config_module
from generalist_core.config import (
    FGSM,
    MART,
    NFGSM,
    PGD,
    SGD,
    TRADES,
    Adam,
    AdamW,
    Cosine,
    CutMix,
    DataConfig,
    EvaluationConfig,
    ExpertConfig,
    InvalidConfigError,
    MixingConfig,
    MixUp,
    ModelConfig,
    NamedAttack,
    OneCycle,
    PiecewiseLinear,
    RatioSchedule,
    RMSprop,
    SyncConfig,
    as_weights,
    schedules,
)
from tests.helpers.problems import NATURAL, ROBUST, SPARSE, three_experts, two_experts

UNDER_ATTACK = NamedAttack(name="robust", attack=FGSM(epsilon=0.1))
JUDGED = EvaluationConfig(attacks=(UNDER_ATTACK,))

Broken = tuple[Callable[..., Any], dict[str, Any], str, str]

BROKEN: list[Broken] = [
    (DataConfig, {"n_validation": 0}, "n_validation > 0", "n_validation=0"),
    (DataConfig, {"n_train": 0}, "n_train > 0", "n_train=0"),
    (DataConfig, {"image_size": -1}, "image_size > 0", "image_size=-1"),
    (DataConfig, {"crop_padding": -4}, "crop_padding >= 0", "crop_padding=-4"),
    (two_experts, {"n_accumulations": 0}, "1 <= n_accumulations <= batch_size", "=0, batch_size=8"),
    (two_experts, {"n_accumulations": 9}, "1 <= n_accumulations <= batch_size", "=9, batch_size=8"),
    (ModelConfig, {"width": 0}, "width > 0", "width=0"),
    (ModelConfig, {"mean": (0.5,)}, "mean and std given together", "std=None"),
    (ModelConfig, {"mean": (0.5,), "std": (1.0, 2.0)}, "one std a mean", "(1.0, 2.0)"),
    (ModelConfig, {"mean": (0.5,), "std": (0.0,)}, "std > 0", "std=(0.0,)"),
    (ModelConfig, {"mean": (), "std": ()}, "must hold", "()"),
    (FGSM, {"epsilon": -0.1}, "epsilon >= 0", "epsilon=-0.1"),
    (FGSM, {"epsilon": 8.0}, "epsilon <= 1 for linf", "did you mean 8/255?"),
    (FGSM, {"epsilon": float("nan")}, "epsilon >= 0", "epsilon=nan"),
    (FGSM, {"epsilon": 0.1, "norm": "l3"}, "`norm` must be one of linf, l2, l1", "'l3'"),
    (NFGSM, {"epsilon": 1.1}, "epsilon <= 1 for linf", "epsilon=1.1"),
    (NFGSM, {"epsilon": 0.1, "noise_scale": -1.0}, "noise_scale >= 0", "noise_scale=-1.0"),
    (
        NFGSM,
        {"epsilon": 0.1, "relative_step_size": 0.0},
        "relative_step_size > 0",
        "relative_step_size=0.0",
    ),
    (PGD, {"epsilon": 2.0}, "epsilon <= 1 for linf", "epsilon=2.0"),
    (PGD, {"epsilon": 0.1, "steps": 0}, "steps > 0", "steps=0"),
    (
        PGD,
        {"epsilon": 0.1, "relative_step_size": -1.0},
        "relative_step_size > 0",
        "relative_step_size=-1.0",
    ),
    (PGD, {"epsilon": 0.1, "momentum": -0.5}, "momentum >= 0", "momentum=-0.5"),
    (PGD, {"epsilon": 0.1, "loss": "hinge"}, "`attack loss` must be one of", "'hinge'"),
    (
        PGD,
        {"epsilon": 0.1, "loss": "kl", "random_start": False},
        "random_start with loss='kl'",
        "random_start=False",
    ),
    (TRADES, {"beta": -1.0}, "beta >= 0", "beta=-1.0"),
    (MART, {"beta": -1.0}, "beta >= 0", "beta=-1.0"),
    (MixUp, {"alpha": 0.0}, "alpha > 0", "alpha=0.0"),
    (CutMix, {"alpha": -1.0}, "alpha > 0", "alpha=-1.0"),
    *(
        (kind, bad, law, got)
        for kind in (SGD, Adam, AdamW, RMSprop)
        for bad, law, got in (
            ({"lr": 0.0}, "lr > 0", "lr=0.0"),
            ({"weight_decay": -1.0}, "weight_decay >= 0", "weight_decay=-1.0"),
        )
    ),
    *(
        (kind, {beta: 1.0}, f"0 <= {beta} < 1", f"{beta}=1.0")
        for kind in (Adam, AdamW)
        for beta in ("beta1", "beta2")
    ),
    (SGD, {"momentum": 1.0}, "0 <= momentum < 1", "momentum=1.0"),
    (SGD, {"momentum": 0.0, "nesterov": True}, "momentum > 0 with nesterov", "momentum=0"),
    (RMSprop, {"alpha": 1.0}, "0 <= alpha < 1", "alpha=1.0"),
    (RMSprop, {"momentum": -0.1}, "0 <= momentum < 1", "momentum=-0.1"),
    (PiecewiseLinear, {"knots": (0.0, 0.5), "values": (1.0, 1.0)}, "from 0 to 1", "(0.0, 0.5)"),
    (PiecewiseLinear, {"knots": (0.1, 1.0), "values": (1.0, 1.0)}, "from 0 to 1", "(0.1, 1.0)"),
    (PiecewiseLinear, {"knots": (0.0,), "values": (1.0,)}, "from 0 to 1", "(0.0,)"),
    (PiecewiseLinear, {"knots": (), "values": ()}, "from 0 to 1", "knots=()"),
    (
        PiecewiseLinear,
        {"knots": (0.0, 0.7, 0.3, 1.0), "values": (1.0,) * 4},
        "knots increasing",
        "(0.0, 0.7, 0.3, 1.0)",
    ),
    (
        PiecewiseLinear,
        {"knots": (0.0, 0.5, 0.5, 1.0), "values": (1.0,) * 4},
        "knots increasing",
        "(0.0, 0.5, 0.5, 1.0)",
    ),
    (
        PiecewiseLinear,
        {"knots": (0.0, 1.0), "values": (1.0,)},
        "one value a knot",
        "2 knots, 1 values",
    ),
    (
        PiecewiseLinear,
        {"knots": (0.0, 1.0), "values": (1.0, -1.0)},
        "every value >= 0",
        "values=(1.0, -1.0)",
    ),
    (Cosine, {"final": 1.5}, "0 <= final <= 1", "final=1.5"),
    (OneCycle, {"peak": 0.0}, "peak > 0", "peak=0.0"),
    (OneCycle, {"peak": 1.0}, "peak < 1", "peak=1.0"),
    (OneCycle, {"initial": -0.1}, "0 <= initial <= 1", "initial=-0.1"),
    (OneCycle, {"final": 1.1}, "0 <= final <= 1", "final=1.1"),
    (ExpertConfig, {"name": "not a name"}, "identifier", "name='not a name'"),
    (ExpertConfig, {"name": "a.b"}, "identifier", "name='a.b'"),
    (ExpertConfig, {"name": "global"}, "global", "name='global'"),
    (ExpertConfig, {"name": "a", "label_smoothing": 1.0}, "label_smoothing < 1", "smoothing=1.0"),
    (ExpertConfig, {"name": "a", "loss": TRADES()}, "an attack for TRADES and MART", "'a'"),
    (ExpertConfig, {"name": "a", "loss": MART()}, "an attack for TRADES and MART", "'a'"),
    (
        ExpertConfig,
        {"name": "a", "attack": FGSM(epsilon=0.1), "batch_augmentation": MixUp()},
        "no batch_augmentation with an attack",
        "batch_augmentation=MixUp(alpha=0.2)",
    ),
    (RatioSchedule, {"knots": (0.0, 0.9)}, "from 0 to 1", "(0.0, 0.9)"),
    (RatioSchedule, {"values": (0.5,)}, "one value a knot", "2 knots, 1 values"),
    (MixingConfig, {"source": "weights"}, "`source` must be one of experts, averages", "'weights'"),
    (MixingConfig, {"decay": 1.0}, "0 <= decay < 1", "decay=1.0"),
    (MixingConfig, {"decay": -0.1}, "0 <= decay < 1", "decay=-0.1"),
    (SyncConfig, {"start_epoch": -1}, "start_epoch >= 0", "start_epoch=-1"),
    (SyncConfig, {"every_epochs": 0}, "every_epochs > 0", "every_epochs=0"),
    (SyncConfig, {"at": "end"}, "`at` must be one of boundary, every_step", "'end'"),
    (NamedAttack, {"name": "natural", "attack": FGSM(epsilon=0.1)}, "natural", "'natural'"),
    (NamedAttack, {"name": "a/b", "attack": FGSM(epsilon=0.1)}, "identifier", "'a/b'"),
    (NamedAttack, {"name": "a", "attack": NFGSM(epsilon=0.1)}, "stays in its ball", "NFGSM"),
    (EvaluationConfig, {"attacks": ()}, "at least one evaluation attack", "none"),
    (EvaluationConfig, {"attacks": (UNDER_ATTACK,) * 2}, "different names", "['robust', 'robust']"),
    (EvaluationConfig, {"attacks": (UNDER_ATTACK,), "every_epochs": 0}, "every_epochs > 0", "=0"),
    (EvaluationConfig, {"attacks": (UNDER_ATTACK,), "n_images": 0}, "n_images > 0", "got 0"),
    (EvaluationConfig, {"attacks": (UNDER_ATTACK,), "batch_size": 0}, "batch_size > 0", "=0"),
    (
        EvaluationConfig,
        {"attacks": (UNDER_ATTACK,), "release_ratios": ()},
        "at least one release ratio",
        "none",
    ),
    (two_experts, {"experts": (NATURAL,)}, "two or more experts", "['natural']"),
    (two_experts, {"experts": (NATURAL, NATURAL)}, "different names", "['natural', 'natural']"),
    (two_experts, {"epochs": 2}, "sync.start_epoch < epochs", "start_epoch=2, epochs=2"),
    (
        two_experts,
        {"epochs": 0, "sync": SyncConfig(start_epoch=0)},
        "epochs > 0",
        "epochs=0",
    ),
    (two_experts, {"batch_size": 0}, "batch_size > 0", "batch_size=0"),
    (two_experts, {"precision": "float16"}, "`precision` must be one of", "'float16'"),
    (
        two_experts,
        {"mixing": MixingConfig(ratio=RatioSchedule(values=(0.5, 1.5)))},
        "0 <= mixing ratio <= 1",
        "mixing ratio=1.5",
    ),
    (two_experts, {"experts": (NATURAL, ROBUST, SPARSE)}, "one weight an expert", "3 experts"),
    (
        two_experts,
        {"evaluation": dataclasses.replace(JUDGED, release_ratios=(-0.1,))},
        "0 <= mixing ratio <= 1",
        "mixing ratio=-0.1",
    ),
    (
        three_experts,
        {"evaluation": dataclasses.replace(JUDGED, release_ratios=((0.5, 0.5),))},
        "one weight an expert",
        "(0.5, 0.5) for 3 experts",
    ),
]


@pytest.mark.parametrize(("build", "fields", "law", "got"), BROKEN)
def test_a_broken_law_is_stated_with_what_broke_it(
    build: Callable[..., Any], fields: dict[str, Any], law: str, got: str
) -> None:
    with pytest.raises(InvalidConfigError) as error:
        build(**fields)
    assert law in str(error.value)
    assert got in str(error.value)
    assert " must " in str(error.value)


@pytest.mark.parametrize(
    ("ratio", "n_experts", "weights"),
    [
        (0.0, 2, (1.0, 0.0)),
        (0.25, 2, (0.75, 0.25)),
        (1, 2, (0.0, 1.0)),
        ((0.25, 0.75), 2, (0.25, 0.75)),
        ((0, 1, 0), 3, (0.0, 1.0, 0.0)),
        ((0.1, 0.2, 0.7), 3, (0.1, 0.2, 0.7)),
    ],
)
def test_a_ratio_is_a_point_on_the_simplex(
    ratio: float | tuple[float, ...], n_experts: int, weights: tuple[float, ...]
) -> None:
    assert as_weights(ratio, n_experts) == weights
    assert all(type(weight) is float for weight in as_weights(ratio, n_experts))


@pytest.mark.parametrize(
    ("ratio", "n_experts", "got"),
    [
        (1.01, 2, "mixing ratio=1.01"),
        (float("nan"), 2, "mixing ratio=nan"),
        (0.5, 3, "ratio=0.5 for 3 experts"),
        ((0.5, 0.5), 3, "(0.5, 0.5) for 3 experts"),
        ((0.5, 0.4), 2, "(0.5, 0.4)"),
        ((1.5, -0.5), 2, "(1.5, -0.5)"),
        ((1.0, float("nan")), 2, "(1.0, nan)"),
    ],
)
def test_a_wrong_ratio_is_refused(
    ratio: float | tuple[float, ...], n_experts: int, got: str
) -> None:
    with pytest.raises(InvalidConfigError) as error:
        as_weights(ratio, n_experts)
    assert got in str(error.value)


@pytest.mark.parametrize(
    ("progress", "weights"),
    [(0.0, (0.0, 1.0)), (0.5, (0.0, 1.0)), (0.75, (0.3, 0.7)), (1.0, (0.6, 0.4))],
)
def test_a_ratio_schedule_is_linear_between_knots(
    progress: float, weights: tuple[float, ...]
) -> None:
    schedule = RatioSchedule(knots=(0.0, 0.5, 1.0), values=(1.0, 1.0, 0.4))
    assert schedule.weights(progress, 2) == pytest.approx(weights)


def test_the_ratio_holds_for_an_epoch() -> None:
    corners = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    mixing = MixingConfig(ratio=RatioSchedule(values=corners))
    config = three_experts(mixing=mixing, epochs=10)
    assert config.weights_at(3) == pytest.approx((0.7, 0.3, 0.0))


@pytest.mark.parametrize(
    ("start", "every", "epochs"),
    [(0, 1, [0, 1, 2, 3, 4, 5, 6, 7]), (0, 3, [0, 3, 6]), (3, 2, [3, 5, 7]), (7, 5, [7])],
)
def test_sync_epochs(start: int, every: int, epochs: list[int]) -> None:
    sync = SyncConfig(start_epoch=start, every_epochs=every)
    assert [epoch for epoch in range(8) if sync.is_sync(epoch)] == epochs


@pytest.mark.parametrize(
    ("config", "known"),
    [
        (MixingConfig(decay=0.999), {0: 0.1, 1: 2 / 11, 90: 0.91, 8990: 0.999, 10**6: 0.999}),
        (MixingConfig(decay=0.9, decay_warmup=False), {0: 0.9, 5: 0.9}),
        (MixingConfig(decay=0.0), {0: 0.0, 5: 0.0}),
    ],
)
def test_the_decay_of_averages(config: MixingConfig, known: dict[int, float]) -> None:
    assert {t: config.decay_at(t) for t in known} == pytest.approx(known)


def test_objectives_are_natural_and_one_an_attack() -> None:
    assert three_experts().evaluation.objectives == ("natural", "robust", "sparse")


def test_configurations_are_frozen_and_take_only_names() -> None:
    classes = {
        kind
        for module in (config_module, schedules)
        for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
    }
    assert len(classes) > 20
    for kind in classes:
        assert kind.__dataclass_params__.frozen, kind
        assert all(field.kw_only for field in dataclasses.fields(kind)), kind


def test_all_names_everything_public() -> None:
    assert len(set(config_module.__all__)) == len(config_module.__all__)
    assert all(hasattr(config_module, name) for name in config_module.__all__)
    kinds = inspect.getmembers(config_module, dataclasses.is_dataclass)
    assert {name for name, _ in kinds} <= set(config_module.__all__)


def test_equal_fields_make_equal_configurations() -> None:
    assert two_experts() == two_experts()
    assert len({two_experts(), two_experts()}) == 1
    different = [two_experts(), two_experts(seed=1), three_experts()]
    assert not any(a == b for a, b in itertools.combinations(different, 2))
