"""An expert whose settings changed while it was trained is the same one if it is trained anew."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from generalist_core.config import (
    FGSM,
    MART,
    PGD,
    SGD,
    TRADES,
    AdamW,
    CrossEntropy,
    CustomAttack,
    CustomLoss,
    EarlierSettings,
    RMSprop,
    SeveralAttacks,
    SyncConfig,
    TrainConfig,
)
from generalist_core.config.codec import from_json, to_json
from generalist_core.config.norms import with_norms
from generalist_core.training.cost import update_cost
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmups import adopt_warmup, train_warmup, warmup_keys, warmup_state
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import (
    NATURAL,
    NORM_ATTACKS,
    ROBUST,
    ratio,
    same_bits,
    start,
    train_to,
    two_experts,
    with_expert,
)

FIRST: dict[str, Any] = {
    "attack": PGD(epsilon=0.1, steps=2),
    "loss": CrossEntropy(),
    "optimizer": SGD(lr=0.05, momentum=0.9),
}
SECOND: dict[str, Any] = {
    "attack": PGD(epsilon=0.1, steps=3, loss="kl"),
    "loss": TRADES(beta=2.0),
    "optimizer": SGD(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01),
}
THIRD: dict[str, Any] = {**SECOND, "optimizer": SGD(lr=0.01, momentum=0.0)}


def run(now: dict[str, Any], *earlier: EarlierSettings) -> TrainConfig:
    sync = SyncConfig(start_epoch=4, every_epochs=2)
    return with_expert(two_experts(sync=sync, epochs=6), "robust", **now, earlier=earlier)


THROUGH = run(THIRD, EarlierSettings(until=1, **FIRST), EarlierSettings(until=3, **SECOND))


def expert_state(trainer: GeneralistTrainer) -> dict[str, Any]:
    return copy.deepcopy(warmup_state(trainer, "robust"))


def warmed(config: TrainConfig, state: dict[str, Any] | None, epoch: int) -> dict[str, Any]:
    """The robust expert's state after it went on from `state` up to an epoch, by `config`."""
    trainer = start(config)
    if state is not None:
        adopt_warmup(trainer, "robust", state)
        groups = trainer.expert("robust").optimizer.param_groups
        optimizer = config.experts[1].optimizer
        assert isinstance(optimizer, SGD)
        for name in ("momentum", "nesterov", "weight_decay"):
            groups[0][name] = getattr(optimizer, name)
    while trainer.expert("robust").epoch < epoch:
        train_warmup(trainer, "robust")
    return expert_state(trainer)


def test_it_trains_as_by_one_setting_after_the_other() -> None:
    state = None
    for settings, epoch in ((FIRST, 1), (SECOND, 3), (THIRD, 4)):
        state = warmed(run(settings), state, epoch)
    trainer = start(THROUGH)
    for _ in range(4):
        train_warmup(trainer, "robust")
    assert same_bits(expert_state(trainer), state)


def test_keys_are_shared_up_to_the_epoch_in_which_settings_change() -> None:
    keys = warmup_keys(start(THROUGH), "robust")
    before = EarlierSettings(until=1, **FIRST)
    two = warmup_keys(start(run(SECOND, before)), "robust")
    one, other = (warmup_keys(start(run(each)), "robust") for each in (FIRST, SECOND))
    later = warmup_keys(start(run(SECOND, EarlierSettings(until=2, **FIRST))), "robust")
    assert keys[:2] == two[:2] == one[:2]
    assert keys[:4] == two[:4]
    assert later[:3] == one[:3]
    assert len({keys[2], one[2], other[2]}) == len({keys[4], two[4], later[4]}) == 3


def test_settings_beyond_the_warm_up_are_in_no_key() -> None:
    keys = warmup_keys(start(run(SECOND, EarlierSettings(until=4, **FIRST))), "robust")
    assert keys == warmup_keys(start(run(FIRST)), "robust")


@pytest.mark.parametrize("epoch", range(1, 6))
def test_a_checkpoint_continues_with_the_settings_of_its_epoch(epoch: int) -> None:
    config = run(THIRD, EarlierSettings(until=1, **FIRST), EarlierSettings(until=5, **SECOND))
    whole = train_to(start(config), 6)
    stopped = train_to(start(config), epoch)
    again = start(config)
    again.load_state_dict(copy.deepcopy(stopped.state_dict()))
    assert same_bits(train_to(again, 6).state_dict(), whole.state_dict())


def test_what_is_adopted_continues_with_new_settings() -> None:
    state = warmed(run(FIRST), None, 1)
    trainer = start(THROUGH)
    adopt_warmup(trainer, "robust", state)
    assert same_bits(
        train_to(trainer, 6).expert("robust").state_dict()["model"],
        train_to(start(THROUGH), 6).expert("robust").state_dict()["model"],
    )


def test_what_was_adopted_saved_what_its_epochs_cost() -> None:
    donor, trainer = start(THROUGH), start(THROUGH)
    for _ in range(4):
        train_warmup(donor, "robust")
    for epoch in (2, 4):
        adopt_warmup(trainer, "robust", warmed(THROUGH, None, epoch))
    assert trainer.reused_forward_images == donor.forward_images


def test_each_epoch_costs_and_reports_what_its_settings_say() -> None:
    trainer = start(THROUGH)
    for settings in (FIRST, SECOND, SECOND, THIRD):
        expert = with_expert(two_experts(), "robust", **settings).experts[1]
        before = trainer.forward_images
        metrics = train_warmup(trainer, "robust")
        assert metrics["lr/robust"] == expert.optimizer.lr
        assert trainer.forward_images - before == 16 * update_cost(expert)


def test_a_warm_up_that_is_left_out_ends_with_the_settings_of_the_first_sync() -> None:
    """The natural expert has no weight before it, and begins there."""
    past = EarlierSettings(until=2, optimizer=SGD(lr=0.3, momentum=0.5))
    config = with_expert(run(FIRST), "natural", earlier=(past,))
    trainer = start(replace(config, mixing=ratio(1.0)))
    assert trainer.discarded == {"natural"}
    group = train_to(trainer, 5).expert("natural").optimizer.param_groups[0]
    assert group["momentum"] == NATURAL.optimizer.momentum  # type: ignore[union-attr]


def test_the_json_form_is_lossless() -> None:
    assert from_json(to_json(THROUGH), TrainConfig) == THROUGH


CUSTOM = "tests.helpers.problems:linear_net"
SUM = SeveralAttacks(parts=NORM_ATTACKS[:2], combine="average")


@pytest.mark.parametrize(
    ("now", "past"),
    [
        ({}, {"optimizer": AdamW()}),
        ({}, {"attack": None}),
        ({}, {"attack": FGSM(epsilon=0.1)}),
        ({"attack": SUM}, {"attack": SeveralAttacks(parts=SUM.parts, combine="worst")}),
        ({}, {"loss": CustomLoss(function=CUSTOM)}),
        ({"loss": CustomLoss(function=CUSTOM)}, {"loss": CrossEntropy()}),
        (
            {"attack": CustomAttack(function=CUSTOM, epsilon=0.1, forward_images=1)},
            {"attack": CustomAttack(function=CUSTOM, epsilon=0.2, forward_images=1)},
        ),
        ({}, {"attack": None, "loss": MART()}),
        ({"optimizer": RMSprop(momentum=0.9)}, {"optimizer": RMSprop(momentum=0.0)}),
    ],
    ids=str,
)
def test_settings_of_other_kinds_are_refused(now: dict[str, Any], past: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError):
        run({**FIRST, **now}, EarlierSettings(until=1, **{**FIRST, **now, **past}))


def test_epochs_must_grow() -> None:
    with pytest.raises(InvalidConfigError, match="must grow, but got until=\\[3, 3\\]"):
        run(FIRST, EarlierSettings(until=3, **SECOND), EarlierSettings(until=3, **THIRD))
    assert ROBUST.at(7) is ROBUST


def test_they_end_before_the_training_does() -> None:
    with pytest.raises(InvalidConfigError, match="must end before the last epoch, but got until=6"):
        run(FIRST, EarlierSettings(until=6, **SECOND))


def test_norms_are_set_at_all_times() -> None:
    config = run(FIRST, EarlierSettings(until=1, **SECOND))
    expert = with_norms(config, {"l2": 0.5}).experts[1]
    attacks = [past.attack for past in (expert, *expert.earlier)]
    assert [(a.norm, a.epsilon) for a in attacks if isinstance(a, PGD)] == [("l2", 0.5)] * 2
