"""Warm-ups: trained apart, handed on, and not trained where the method throws them away."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from generalist_core.config import (
    SGD,
    AdamW,
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
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmup_keys import discarded_warmups
from generalist_core.training.warmups import adopt_warmup, train_warmup, warming, warmup_state
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import (
    RUNS,
    largest_difference,
    ratio,
    same_bits,
    sliding,
    start,
    synced,
    three_experts,
    train_to,
    two_experts,
    with_expert,
)

STOP = 2
"""The epoch of the first sync."""


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
    for name in reversed(warming(trainer)):
        while name in warming(trainer):
            train_warmup(trainer, name)
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
        metrics = train_warmup(ahead, "natural")
    assert (ahead.epoch, metrics["epoch"], metrics["epoch/natural"]) == (0, 0, 3)
    assert not {"loss/robust", "epoch/robust"} & set(metrics)
    assert warming(ahead) == ["natural", "robust"]
    losses = [set(ahead.train_epoch()) & {"loss/natural", "loss/robust"} for _ in range(4)]
    assert losses == [{"loss/robust"}] * 3 + [{"loss/natural", "loss/robust"}]
    assert same_bits(ahead.state_dict(), train_to(start(config), 4).state_dict())
    assert warming(ahead) == []


def test_a_checkpoint_between_two_warm_ups_resumes() -> None:
    config = two_experts()
    trainer, again = start(config), start(config)
    train_warmup(trainer, "robust")
    again.load_state_dict(copy.deepcopy(trainer.state_dict()))
    assert (again.expert("robust").epoch, again.epoch) == (1, 0)
    assert same_bits(train_to(again, 5).state_dict(), train_to(start(config), 5).state_dict())


def test_an_expert_alone_is_judged_under_attack_if_it_trains_on_one() -> None:
    trainer = start(two_experts())
    train_warmup(trainer, "natural")
    train_warmup(trainer, "robust")
    natural, robust = (trainer.evaluate_expert(name) for name in ("natural", "robust"))
    assert set(natural) == {"accuracy/natural/natural"}
    assert set(robust) == {"accuracy/robust/natural", "accuracy/robust/robust"}
    assert trainer.evaluate() == {**natural, **robust, "forward_images": trainer.forward_images}


def test_after_the_first_sync_no_expert_trains_alone() -> None:
    trainer = train_to(start(two_experts()), 3)
    with pytest.raises(
        InvalidConfigError, match="left before the first sync, but 'robust' has none"
    ):
        train_warmup(trainer, "robust")
    with pytest.raises(InvalidConfigError, match=r"in its warm-up.*'robust' is not, at epoch 3"):
        warmup_state(trainer, "robust")


# Passing states on


@pytest.mark.parametrize("donor_epoch", [1, 2, 3])
@pytest.mark.parametrize("name", ["averages", "adamw, trades", "three, mixup, adamw", "dropout"])
def test_a_run_goes_on_from_an_adopted_state(name: str, donor_epoch: int) -> None:
    config = dataclasses.replace(APART[name], sync=SyncConfig(start_epoch=3, every_epochs=1))
    later = dataclasses.replace(config, sync=SyncConfig(start_epoch=4))
    trainer, expected = start(config), train_to(start(config), config.epochs)
    lent = warmup_state(train_to(start(later), donor_epoch), "robust")
    before = copy.deepcopy(lent)
    adopt_warmup(trainer, "robust", lent)
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
    train_warmup(trainer, "robust")
    adopt_warmup(trainer, "robust", warmup_state(donor, "robust"))
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
        ("natural", 0, 1, "that of expert 'natural', but got that of 'robust'"),
        ("robust", 2, 1, "from 2 to the first sync at 3.*got epoch 1"),
        ("robust", 0, 4, "from 0 to the first sync at 3.*got epoch 4"),
        ("robust", 3, 3, "from 3 to the first sync at 3.*got epoch 3"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    name: str, done: int, lent: int, message: str
) -> None:
    state = warmup_state(train_to(start(synced(start_epoch=4)), lent), "robust")
    with pytest.raises(InvalidConfigError, match=message):
        adopt_warmup(train_to(start(synced(start_epoch=3)), done), name, state)


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
    """The learning rate is 0 from then on; its average is as old as the learner."""
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
    assert warming(trainer) == ["robust"]
    metrics = trainer.train_epoch()
    assert "loss/natural" not in metrics
    assert metrics["weight/natural"] == 0
    assert trainer.epoch == 1
    assert judged_by(trainer) == {"robust"}
    with pytest.raises(InvalidConfigError, match=r"in its warm-up.*'natural' is not"):
        warmup_state(trainer, "natural")
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
