"""Warm-ups: what a key depends on, training apart, passing states on, and what is not trained."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from generalist_core.config import (
    PGD,
    SGD,
    AdamW,
    Constant,
    Cosine,
    DataConfig,
    MixingConfig,
    MixUp,
    ModelConfig,
    PiecewiseLinear,
    RatioSchedule,
    SyncConfig,
    TrainConfig,
)
from generalist_core.config.presets import official, paper
from generalist_core.data.splits import Dataset, Split
from generalist_core.fingerprints import model_fingerprint, split_fingerprint
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmup_keys import discarded_warmups
from generalist_core.user_code import load_callable
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import (
    NATURAL,
    ROBUST,
    RUNS,
    SPARSE,
    largest_difference,
    ratio,
    same_bits,
    three_experts,
    tiny_dataset,
    tiny_split,
    train_to,
    two_experts,
    with_expert,
)

STOP = 2
"""The epoch after which keys and states are compared."""

LONG = RatioSchedule(knots=(0, 0.6, 1), values=(1.0, 1.0, 0.2))
"""Constant up to epoch 3 of 5."""

FALLING = PiecewiseLinear(knots=(0, 0.5, 1), values=(1, 0.5, 0.1))


def start(config: TrainConfig, data: Dataset | None = None, **others: Any) -> GeneralistTrainer:
    return GeneralistTrainer(config, data or tiny_dataset(), **others)


def robust(**changes: Any) -> TrainConfig:
    return with_expert(two_experts(), "robust", **changes)


def synced(**changes: Any) -> TrainConfig:
    return two_experts(sync=SyncConfig(**{"start_epoch": STOP, "every_epochs": 2, **changes}))


def falling(**changes: Any) -> TrainConfig:
    """The robust expert's learning rate falls to half in the middle of the run, then on."""
    return robust(schedule=dataclasses.replace(FALLING, **changes))


def sliding(*values: float, start_epoch: int = STOP) -> TrainConfig:
    """A ratio that is linear in 2 + 3 epochs."""
    mixing = dataclasses.replace(
        ratio(0.5), ratio=RatioSchedule(knots=(0, 0.4, 1), values=tuple(values))
    )
    return dataclasses.replace(synced(start_epoch=start_epoch), mixing=mixing)


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
    "rates by step": (falling(), falling(per_step=True)),
    "length where rates change": (falling(), dataclasses.replace(falling(), epochs=6)),
    "schedule": (two_experts(), robust(schedule=Cosine())),
    "values of a ratio": (sliding(0.2, 0.8, 0.3), sliding(0.2, 0.7, 0.3)),
    "whether a ratio changes": (two_experts(mixing=ratio(0.2)), sliding(0.2, 0.8, 0.3)),
}


def key_and_state(config: TrainConfig) -> tuple[str, dict[str, Any]]:
    """Of the robust expert after two epochs."""
    trainer = start(config)
    while trainer.expert("robust").epoch < STOP:
        trainer.train_warmup("robust")
    return trainer.warmup_keys("robust")[STOP], trainer.warmup_state("robust")


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


def test_every_state_has_a_key_of_its_own() -> None:
    trainer = start(three_experts())
    keys = [key for name in trainer.warming for key in trainer.warmup_keys(name)]
    assert len(set(keys)) == len(keys) == 3 * (STOP + 1)


def test_devices_of_different_kinds_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = start(two_experts())
    keys = trainer.warmup_keys("robust")
    trainer.device = torch.device("cuda:1")
    assert not set(keys) & set(trainer.warmup_keys("robust"))


def test_the_keys_of_own_data_follow_the_training_images() -> None:
    data = tiny_dataset()
    darker = Split(images=data.train.images * 0.99, labels=data.train.labels)
    relabelled = Split(images=data.train.images, labels=1 - data.train.labels)
    judged = dataclasses.replace(data, name="other", validation=tiny_split(10, seed=7))
    key = start(two_experts(), data).warmup_keys("robust")
    assert start(two_experts(), judged).warmup_keys("robust") == key
    for train in (darker, relabelled):
        other = start(two_experts(), dataclasses.replace(data, train=train))
        assert other.warmup_keys("robust") != key
    prints = {split_fingerprint(split) for split in (data.train, darker, relabelled)}
    assert len(prints) == 3


class Scaled(nn.Module):
    def __init__(self, scale: float, activation: Callable[..., Any] = torch.relu) -> None:
        super().__init__()
        self.scale, self.activation = scale, activation
        self.flatten = nn.Flatten()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.scale * self.flatten(x)[:, :2])


def frozen_linear() -> nn.Module:
    model = nn.Linear(2, 2)
    model.load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)})
    return model.requires_grad_(False)


def test_the_fingerprint_of_an_own_model_follows_tensors_settings_and_functions() -> None:
    models = [
        Scaled(1.0),
        Scaled(2.0),
        Scaled(1.0, torch.tanh),
        nn.Dropout(0.1),
        nn.Dropout(0.2),
        frozen_linear(),
        frozen_linear().requires_grad_(True),
    ]
    prints = [model_fingerprint(model) for model in models]
    assert len(set(prints)) == len(prints)
    assert [model_fingerprint(copy.deepcopy(model)) for model in models] == prints


def test_the_fingerprint_of_an_own_model_follows_its_file(tmp_path: Path) -> None:
    file, found = tmp_path / "net.py", []
    for factor in (1, 2, 1):
        file.write_text(
            "from torch import nn\n"
            "class Net(nn.Flatten):\n"
            f"    def forward(self, x): return {factor} * super().forward(x)[:, :2]\n"
            "def net(n_classes, shape): return Net()\n"
        )
        model = load_callable(f"{file}:net", what="model")(2, (1, 4, 4))
        assert isinstance(model, nn.Module)
        found.append(model_fingerprint(model))
    assert found[0] == found[2] != found[1]


def test_a_model_that_was_typed_in_has_a_fingerprint() -> None:
    found = []
    for factor in (1, 2, 1):
        scope: dict[str, Any] = {"nn": nn}
        code = f"class Net(nn.Flatten):\n    def forward(self, x): return {factor} * x\n"
        exec(compile(code, "<stdin>", "exec"), scope)
        found.append(model_fingerprint(scope["Net"]()))
    assert found[0] == found[2] != found[1]


# Apart or side by side

APART: dict[str, TrainConfig] = {
    **RUNS,
    "averages": two_experts(mixing=ratio(0.3, source="averages")),
    "sliding, by step, dropout": dataclasses.replace(
        sliding(0.2, 0.8, 0.3, start_epoch=3),
        model=ModelConfig(name="tests.helpers.problems:dropout_net"),
        sync=SyncConfig(start_epoch=3, every_epochs=1, at="every_step"),
    ),
    "three, mixup, adamw": with_expert(
        with_expert(
            three_experts(mixing=ratio((0.2, 0.3, 0.5))), "natural", batch_augmentation=MixUp()
        ),
        "sparse",
        optimizer=AdamW(),
    ),
    "one discarded": three_experts(mixing=ratio((0.5, 0.5, 0.0))),
}


def warmed_apart(config: TrainConfig) -> GeneralistTrainer:
    """Each expert to the first sync before the next one begins, the last one first."""
    trainer = start(config)
    for name in reversed(trainer.warming):
        while name in trainer.warming:
            trainer.train_warmup(name)
    return trainer


@pytest.mark.parametrize("name", APART)
def test_experts_trained_apart_end_as_those_trained_side_by_side(name: str) -> None:
    config = APART[name]
    apart, beside = warmed_apart(config), train_to(start(config), config.sync.start_epoch)
    assert same_bits(apart.state_dict(), beside.state_dict())
    ends = [train_to(trainer, config.epochs) for trainer in (apart, beside)]
    assert same_bits(ends[0].state_dict(), ends[1].state_dict())
    assert same_bits(ends[0].global_learner, ends[1].global_learner)


def test_an_expert_that_is_ahead_waits_for_the_others() -> None:
    config = synced(start_epoch=4)
    ahead = start(config)
    for _ in range(3):
        metrics = ahead.train_warmup("natural")
    assert (ahead.epoch, metrics["epoch"], metrics["epoch/natural"]) == (0, 0, 3)
    assert not {"loss/robust", "epoch/robust"} & set(metrics)
    assert ahead.warming == ["natural", "robust"]
    losses = [set(ahead.train_epoch()) & {"loss/natural", "loss/robust"} for _ in range(4)]
    assert losses == [{"loss/robust"}] * 3 + [{"loss/natural", "loss/robust"}]
    assert same_bits(ahead.state_dict(), train_to(start(config), 4).state_dict())
    assert ahead.warming == []


def test_a_checkpoint_between_two_warm_ups_resumes() -> None:
    config = two_experts()
    trainer, again = start(config), start(config)
    trainer.train_warmup("robust")
    again.load_state_dict(copy.deepcopy(trainer.state_dict()))
    assert (again.expert("robust").epoch, again.epoch) == (1, 0)
    assert same_bits(train_to(again, 5).state_dict(), train_to(start(config), 5).state_dict())


def test_an_expert_alone_is_judged_under_attack_if_it_trains_on_one() -> None:
    trainer = start(two_experts())
    trainer.train_warmup("natural")
    trainer.train_warmup("robust")
    natural, robust = (trainer.evaluate_expert(name) for name in ("natural", "robust"))
    assert set(natural) == {"accuracy/natural/natural"}
    assert set(robust) == {"accuracy/robust/natural", "accuracy/robust/robust"}
    assert trainer.evaluate() == {
        **natural,
        **robust,
        "forward_images": trainer.forward_images,
    }


def test_after_the_first_sync_no_expert_trains_alone() -> None:
    trainer = train_to(start(two_experts()), 3)
    with pytest.raises(InvalidConfigError, match="an expert before the first sync"):
        trainer.train_warmup("robust")
    with pytest.raises(InvalidConfigError, match="'robust' in its warm-up"):
        trainer.warmup_state("robust")


# Passing states on


@pytest.mark.parametrize("donor_epoch", [1, 2, 3])
@pytest.mark.parametrize("name", ["averages", "adamw, trades", "three, mixup, adamw", "dropout"])
def test_a_run_goes_on_from_an_adopted_state(name: str, donor_epoch: int) -> None:
    config = dataclasses.replace(APART[name], sync=SyncConfig(start_epoch=3, every_epochs=1))
    later = dataclasses.replace(config, sync=SyncConfig(start_epoch=4))
    trainer, expected = start(config), train_to(start(config), config.epochs)
    lent = train_to(start(later), donor_epoch).warmup_state("robust")
    before = copy.deepcopy(lent)
    trainer.adopt_warmup("robust", lent)
    assert trainer.expert("robust").epoch == donor_epoch
    train_to(trainer, config.epochs)
    assert same_bits(trainer.averages(), expected.averages())
    assert same_bits(trainer.global_learner, expected.global_learner)
    assert same_bits(lent, before)


def test_what_was_computed_and_what_was_reused_add_up() -> None:
    """20 images in 2 batches of 8; a natural update is 3 units, PGD with two steps 4 more."""
    config = synced(start_epoch=4)
    donor = train_to(start(config), 3)
    trainer = start(config)
    trainer.train_warmup("robust")
    trainer.adopt_warmup("robust", donor.warmup_state("robust"))
    assert trainer.forward_images == 16 * 7
    assert trainer.reused_forward_images == 2 * 16 * 7
    metrics = [trainer.train_epoch() for _ in range(5)][-1]
    alone = train_to(start(config), 5)
    assert metrics["reused_forward_images"] == 2 * 16 * 7
    assert metrics["forward_images"] + 2 * 16 * 7 == alone.forward_images == 5 * 16 * 10
    again = start(config)
    again.load_state_dict(copy.deepcopy(trainer.state_dict()))
    assert again.reused_forward_images == 2 * 16 * 7


@pytest.mark.parametrize(
    ("name", "done", "lent", "message"),
    [
        ("natural", 0, 1, "a warm-up of 'natural'.*'robust'"),
        ("robust", 2, 1, "from epoch 2 to the first sync.*got epoch 1"),
        ("robust", 0, 4, "from epoch 0 to the first sync.*got epoch 4 of a warm-up to 3"),
        ("robust", 3, 3, "from epoch 3 to the first sync"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    name: str, done: int, lent: int, message: str
) -> None:
    state = train_to(start(synced(start_epoch=4)), lent).warmup_state("robust")
    with pytest.raises(InvalidConfigError, match=message):
        train_to(start(synced(start_epoch=3)), done).adopt_warmup(name, state)


# What the method throws away

ROBUST_FIRST = RatioSchedule(knots=(0, 0.6, 1), values=(1.0, 1.0, 0.4))
"""All weight on the robust expert up to epoch 3 of 5: beyond the first sync."""


def discarding(**changes: Any) -> TrainConfig:
    mixing = MixingConfig(ratio=ROBUST_FIRST, decay=0.9, source=changes.pop("source", "experts"))
    return dataclasses.replace(synced(**changes), mixing=mixing)


@pytest.mark.parametrize(
    ("config", "discarded"),
    [
        (discarding(), {"natural"}),
        (discarding(skip_discarded_warmup=False), set()),
        (discarding(start_epoch=3), {"natural"}),
        (discarding(start_epoch=4), set()),
        (discarding(start_epoch=0), set()),
        (two_experts(mixing=ratio(0.0)), {"robust"}),
        (two_experts(mixing=ratio(0.001)), set()),
        (three_experts(mixing=ratio((0.5, 0.5, 0.0))), {"sparse"}),
        (three_experts(mixing=ratio((0.0, 1.0, 0.0))), {"natural", "sparse"}),
        (three_experts(mixing=ratio((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))), {"sparse"}),
        (paper(data=DataConfig(name="tiny")), {"natural"}),
        (official(data=DataConfig(name="tiny")), set()),
    ],
)
def test_an_expert_without_weight_up_to_the_first_sync_is_discarded(
    config: TrainConfig, discarded: set[str]
) -> None:
    assert discarded_warmups(config) == discarded


@pytest.mark.parametrize("source", ["experts", "averages"])
@pytest.mark.parametrize("at", ["boundary", "every_step"])
def test_a_discarded_expert_begins_as_the_global_learner(at: Any, source: Any) -> None:
    """At learning rate 0 from then on; its average is as old as the learner."""
    still = PiecewiseLinear(knots=(0, 0.4, 1), values=(1, 0, 0))
    optimizer = SGD(lr=0.1, weight_decay=0.0)
    config = discarding(at=at, source=source)
    for name in ("natural", "robust"):
        config = with_expert(config, name, schedule=still, optimizer=optimizer)
    trainer = start(config)
    initial = copy.deepcopy(trainer.expert("natural").state_dict())
    train_to(trainer, STOP)
    natural = trainer.expert("natural")
    assert same_bits(natural.state_dict(), initial)
    assert trainer.forward_images == STOP * 16 * 7
    learner = [tensor.clone() for tensor in trainer.global_learner]
    trainer._begin_cotraining()
    assert same_bits(natural.weights, learner)
    assert same_bits(natural.average.weights, learner)
    assert natural.average.n_updates == trainer.expert("robust").average.n_updates == 4
    assert not natural.optimizer.state


@pytest.mark.parametrize("source", ["experts", "averages"])
@pytest.mark.parametrize("at", ["boundary", "every_step"])
def test_skipping_leaves_the_others_as_long_as_the_discarded_expert_has_no_weight(
    at: Any, source: Any
) -> None:
    """Weight comes in epoch 4; before, only the discarded expert's own memory differs."""
    skipped, whole = (
        start(discarding(at=at, source=source, skip_discarded_warmup=skip))
        for skip in (True, False)
    )
    for trainer in (skipped, whole):
        train_to(trainer, STOP)
    assert same_bits(*(t.expert("robust").state_dict() for t in (skipped, whole)))
    assert same_bits(skipped.global_learner, whole.global_learner)
    assert whole.forward_images - skipped.forward_images == STOP * 16 * 3
    for trainer in (skipped, whole):
        train_to(trainer, 4)
    assert same_bits(skipped.global_learner, whole.global_learner)
    assert not same_bits(*(t.expert("natural").average.weights for t in (skipped, whole)))
    for trainer in (skipped, whole):
        trainer.train_epoch()
    assert not same_bits(skipped.global_learner, whole.global_learner)


def test_a_skipped_warm_up_is_not_trained_judged_or_lent() -> None:
    trainer = start(discarding())
    assert trainer.warming == ["robust"]
    metrics = trainer.train_epoch()
    assert "loss/natural" not in metrics
    assert metrics["weight/natural"] == 0
    assert trainer.epoch == 1
    assert judged_by(trainer) == {"robust"}
    with pytest.raises(InvalidConfigError, match="'natural' in its warm-up"):
        trainer.warmup_state("natural")
    train_to(trainer, 3)
    assert judged_by(trainer) == {"global"}


def judged_by(trainer: GeneralistTrainer) -> set[str]:
    """The learners that an evaluation judges."""
    return {name.split("/")[1] for name in trainer.evaluate() if "/" in name}


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_that_skips_resumes(stop: int) -> None:
    config = discarding(source="averages")
    trainer, again = train_to(start(config), stop), start(config)
    again.load_state_dict(copy.deepcopy(trainer.state_dict()))
    ends = [train_to(t, config.epochs) for t in (trainer, again)]
    assert same_bits(ends[0].state_dict(), ends[1].state_dict())
    assert largest_difference(ends[0].expert("natural").weights, trainer.global_learner) > 0
