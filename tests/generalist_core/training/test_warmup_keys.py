"""What the key of a warm-up depends on, and what leaves it as it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from generalist_core.config import (
    PGD,
    SGD,
    AdamW,
    Constant,
    Cosine,
    CutMix,
    ModelConfig,
    PiecewiseLinear,
    RatioSchedule,
    TrainConfig,
)
from generalist_core.data.splits import Split
from generalist_core.training.warmups import train_warmup, warming, warmup_keys, warmup_state
from tests.helpers.problems import (
    NATURAL,
    ROBUST,
    SPARSE,
    linear_net,
    ratio,
    same_bits,
    sliding,
    start,
    synced,
    three_experts,
    tiny_dataset,
    tiny_split,
    two_experts,
    with_expert,
)

STOP = 2
"""The epoch after which keys and states are compared."""

LONG = RatioSchedule(knots=(0, 0.6, 1), values=(1.0, 1.0, 0.2))
"""Constant up to epoch 3 of 5."""

FALLING = PiecewiseLinear(knots=(0, 0.5, 1), values=(1, 0.5, 0.1))


def robust(**changes: Any) -> TrainConfig:
    return with_expert(two_experts(), "robust", **changes)


def falling(**changes: Any) -> TrainConfig:
    """The robust expert's learning rate falls to half in the middle of the run, then on."""
    return robust(schedule=dataclasses.replace(FALLING, **changes))


def with_data(**changes: Any) -> TrainConfig:
    return two_experts(data=dataclasses.replace(two_experts().data, **changes))


# What a key depends on: two configurations whose robust warm-ups are, or are not, the same

SAME: dict[str, tuple[TrainConfig, TrainConfig]] = {
    "first sync": (two_experts(), synced(start_epoch=4)),
    "interval": (two_experts(), synced(every_epochs=1)),
    "kind of sync": (two_experts(), synced(at="every_step", restart_momentum=True)),
    "what a sync restarts": (two_experts(), synced(restart_averages=True)),
    "constant ratio": (two_experts(), two_experts(mixing=ratio(0.9))),
    "ratio that changes later": (
        two_experts(),
        two_experts(mixing=dataclasses.replace(ratio(0.5), ratio=LONG)),
    ),
    "later values of a ratio": (sliding(0.2, 0.8, 0.3), sliding(0.2, 0.8, 0.9)),
    "ratio of 1 that falls after this epoch": (
        two_experts(),
        sliding(1.0, 1.0, 0.0, start_epoch=4),
    ),
    "partner": (two_experts(), two_experts(experts=(SPARSE, ROBUST))),
    "partner's rate": (two_experts(), with_expert(two_experts(), "natural", optimizer=AdamW())),
    "order of experts": (two_experts(), two_experts(experts=(ROBUST, NATURAL))),
    "third expert": (two_experts(), three_experts()),
    "judging": (
        two_experts(),
        two_experts(evaluation=dataclasses.replace(two_experts().evaluation, every_epochs=1)),
    ),
    "name of the device": (two_experts(), two_experts(device="cpu:0")),
    "length at constant rate": (two_experts(), two_experts(epochs=9)),
    "later rates": (falling(), falling(values=(1, 0.5, 0.7))),
    "length and knots at equal rates": (
        falling(),
        dataclasses.replace(falling(knots=(0, 0.25, 1)), epochs=10),
    ),
    "kind of a constant schedule": (
        robust(schedule=Constant()),
        robust(schedule=PiecewiseLinear(knots=(0, 1), values=(1, 1), per_step=True)),
    ),
    "where in an epoch constant rates are read": (two_experts(), two_experts(epoch_progress="end")),
    "where in an epoch rates by step begin": (
        falling(per_step=True),
        dataclasses.replace(falling(per_step=True), epoch_progress="end"),
    ),
    "no rise of a rate within its first step": (two_experts(), robust(lr_warmup_epochs=0.5)),
    "partner's gradient and rise": (
        two_experts(),
        with_expert(two_experts(), "natural", max_gradient_norm=0.01, lr_warmup_epochs=1),
    ),
    "where the data lie": (two_experts(), with_data(name="else", root="elsewhere", download=True)),
}

DIFFERENT: dict[str, tuple[TrainConfig, TrainConfig]] = {
    "seed": (two_experts(), two_experts(seed=1)),
    "batch size": (two_experts(), two_experts(batch_size=10)),
    "precision": (two_experts(), two_experts(precision="float64")),
    "bfloat16": (two_experts(), two_experts(precision="bfloat16")),
    "accumulations": (two_experts(), two_experts(n_accumulations=2)),
    "decay": (
        two_experts(mixing=ratio(0.3, decay=0.15)),
        two_experts(mixing=ratio(0.3, decay=0.2)),
    ),
    "decay's warm-up": (
        two_experts(mixing=ratio(0.3, decay=0.15)),
        two_experts(mixing=ratio(0.3, decay=0.15, decay_warmup=False)),
    ),
    "source": (two_experts(), two_experts(mixing=ratio(0.3, source="averages"))),
    "crops": (two_experts(), with_data(crop_padding=0)),
    "flips": (two_experts(), with_data(flip=False)),
    "model": (two_experts(), two_experts(model=ModelConfig(name="convnet", width=3))),
    "normalisation": (
        two_experts(),
        two_experts(model=ModelConfig(name="convnet", width=2, mean=(0.5,), std=(0.5,))),
    ),
    "attack": (two_experts(), robust(attack=PGD(epsilon=0.1, steps=3))),
    "optimizer": (two_experts(), robust(optimizer=AdamW(lr=0.05))),
    "learning rate": (two_experts(), robust(optimizer=SGD(lr=0.06))),
    "label smoothing": (two_experts(), robust(label_smoothing=0.1)),
    "earlier rates": (falling(), falling(values=(1, 0.6, 0.1))),
    "mixed images": (two_experts(), robust(batch_augmentation=CutMix())),
    "rise of a rate": (two_experts(), robust(lr_warmup_epochs=1)),
    "length of a rise": (robust(lr_warmup_epochs=1), robust(lr_warmup_epochs=1.5)),
    "rise of a rate by step or by epoch": (
        robust(lr_warmup_epochs=2),
        robust(schedule=PiecewiseLinear(knots=(0, 0.2, 1), values=(0.25, 0.75, 1))),
    ),
    "largest norm of a gradient": (two_experts(), robust(max_gradient_norm=0.01)),
    "rates by step": (falling(), falling(per_step=True)),
    "length where rates change": (falling(), dataclasses.replace(falling(), epochs=6)),
    "schedule": (two_experts(), robust(schedule=Cosine())),
    "where in an epoch rates are read": (
        falling(),
        dataclasses.replace(falling(), epoch_progress="end"),
    ),
    "values of a ratio": (sliding(0.2, 0.8, 0.3), sliding(0.2, 0.7, 0.3)),
    "whether a ratio changes": (two_experts(mixing=ratio(0.2)), sliding(0.2, 0.8, 0.3)),
}


def key_and_state(config: TrainConfig) -> tuple[str, dict[str, Any]]:
    """Of the robust expert after two epochs."""
    trainer = start(config)
    while trainer.expert("robust").epoch < STOP:
        train_warmup(trainer, "robust")
    return warmup_keys(trainer, "robust")[STOP], warmup_state(trainer, "robust")


@pytest.mark.parametrize("change", SAME)
def test_a_key_is_blind_to_what_leaves_the_state(change: str) -> None:
    (key, state), (other_key, other_state) = map(key_and_state, SAME[change])
    assert same_bits(state, other_state)
    assert key == other_key


@pytest.mark.parametrize("change", DIFFERENT)
def test_a_key_sees_what_changes_the_state(change: str) -> None:
    (key, state), (other_key, other_state) = map(key_and_state, DIFFERENT[change])
    assert not same_bits(state, other_state)
    assert key != other_key


def test_a_key_sees_the_seed_where_the_initial_model_does_not_depend_on_it() -> None:
    one, other = (start(two_experts(seed=seed), model=linear_net) for seed in (0, 1))
    for trainer in (one, other):
        train_warmup(trainer, "robust")
    assert one.origin == other.origin
    assert not same_bits(warmup_state(one, "robust"), warmup_state(other, "robust"))
    assert not set(warmup_keys(one, "robust")) & set(warmup_keys(other, "robust"))


def test_every_state_has_a_key_of_its_own() -> None:
    trainer = start(three_experts())
    keys = [key for name in warming(trainer) for key in warmup_keys(trainer, name)]
    assert len(set(keys)) == len(keys) == 3 * (STOP + 1)


def test_devices_of_different_kinds_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = start(two_experts())
    keys = warmup_keys(trainer, "robust")
    trainer.device = torch.device("cuda:1")
    assert not set(keys) & set(warmup_keys(trainer, "robust"))


def test_keys_follow_the_training_images_and_no_others() -> None:
    data = tiny_dataset()
    darker = Split(images=data.train.images * 0.99, labels=data.train.labels)
    relabelled = Split(images=data.train.images, labels=1 - data.train.labels)
    judged = dataclasses.replace(data, name="other", validation=tiny_split(10, seed=7))
    key = warmup_keys(start(two_experts(), data), "robust")
    assert warmup_keys(start(two_experts(), judged), "robust") == key
    for train in (darker, relabelled):
        other = start(two_experts(), dataclasses.replace(data, train=train))
        assert warmup_keys(other, "robust") != key


def test_keys_follow_the_number_of_threads_since_gradients_do() -> None:
    threads, keys = torch.get_num_threads(), []
    try:
        for n in (1, 2, 1):
            torch.set_num_threads(n)
            keys.append(warmup_keys(start(two_experts()), "robust"))
    finally:
        torch.set_num_threads(threads)
    assert keys[0] == keys[2] != keys[1]
