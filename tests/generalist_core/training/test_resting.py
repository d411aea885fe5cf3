"""An expert that rests is trained up to the first sync only, and mixed as it is from then on."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from generalist_core.config import MixingConfig, SyncConfig, TrainConfig
from generalist_core.training.cost import update_cost
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmups import warmup_keys
from generalist_core.validation import InvalidConfigError
from spaces.lineages import as_lineage
from tests.helpers.problems import (
    largest_difference,
    same_bits,
    start,
    synced,
    three_experts,
    train_to,
    two_experts,
    with_expert,
)

FIRST_SYNC, N_IMAGES = 2, 16


def resting(config: TrainConfig, name: str = "robust") -> TrainConfig:
    return with_expert(config, name, rests=True)


def state_of(trainer: GeneralistTrainer, name: str) -> dict[str, Any]:
    """All that an expert has, but for its epoch."""
    state = copy.deepcopy(trainer.expert(name).state_dict())
    del state["epoch"]
    return state


RUNS = {
    "plain": synced(every_epochs=1),
    "restarting": synced(every_epochs=1, restart_momentum=True, restart_averages=True),
    "every step": synced(every_epochs=1, at="every_step"),
    "averages": two_experts(mixing=MixingConfig(source="averages")),
    "three experts": three_experts(),
}


@pytest.mark.parametrize("name", RUNS)
def test_weights_and_average_stay_as_at_the_first_sync(name: str) -> None:
    """To the last bit, while the others are trained and synced."""
    trainer = train_to(start(resting(RUNS[name])), FIRST_SYNC)
    before, others = state_of(trainer, "robust"), state_of(trainer, "natural")
    train_to(trainer, 5)
    after = state_of(trainer, "robust")
    for part in ("model", "average"):
        assert same_bits(after[part], before[part])
    assert not after["optimizer"]["state"]  # it makes no further step
    assert not same_bits(state_of(trainer, "natural"), others)
    assert trainer.is_done
    mixture = trainer.mixture((0.0, 1.0, 0.0) if len(trainer.experts) == 3 else 1.0)
    assert largest_difference(mixture, trainer.expert("robust").average.weights) == 0


@pytest.mark.parametrize("name", RUNS)
def test_the_warm_up_is_that_of_an_expert_that_does_not_rest(name: str) -> None:
    rests, moves = (train_to(start(c), FIRST_SYNC) for c in (resting(RUNS[name]), RUNS[name]))
    for expert in rests.experts:
        other = expert.config.name
        assert warmup_keys(rests, other) == warmup_keys(moves, other)
        assert same_bits(state_of(rests, other), state_of(moves, other))


def test_only_those_who_train_cost() -> None:
    trainer = start(resting(two_experts()))
    natural, robust = map(update_cost, trainer.config.experts)
    for epoch in range(5):
        before = trainer.forward_images
        metrics = trainer.train_epoch()
        trained = natural if epoch >= FIRST_SYNC else natural + robust
        assert trainer.forward_images - before == N_IMAGES * trained
        assert ("loss/robust" in metrics) == ("epoch/robust" in metrics) == (epoch < FIRST_SYNC)
        assert metrics["epoch"] == epoch + 1


def test_the_others_draw_the_noise_that_they_would_draw_without_it() -> None:
    """The robust expert co-trains alone as it would beside a natural expert of no weight."""
    alone = resting(two_experts(), "natural")
    alone = dataclasses.replace(alone, sync=SyncConfig(start_epoch=4, every_epochs=9))
    beside = with_expert(alone, "natural", rests=False)
    found, expected = (train_to(start(config), 4) for config in (alone, beside))
    for trainer in (found, expected):
        trainer.train_epoch()
    assert same_bits(state_of(found, "robust"), state_of(expected, "robust"))
    assert not same_bits(state_of(found, "natural"), state_of(expected, "natural"))


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(stop: int) -> None:
    config = resting(RUNS["restarting"])
    whole, first, second = (start(config) for _ in range(3))
    train_to(whole, 5)
    second.load_state_dict(copy.deepcopy(train_to(first, stop).state_dict()))
    train_to(second, 5)
    assert same_bits(second.state_dict(), whole.state_dict())


def test_the_natural_expert_of_a_branch_begins_as_the_lineage() -> None:
    """With its average: at a rate that moves nothing, both ends of the mixtures are equal."""
    config = as_lineage(resting(two_experts()), 2, 4)
    natural = dataclasses.replace(config.experts[0].optimizer, lr=1e-30)
    trainer = train_to(start(with_expert(config, "natural", optimizer=natural)), 2)
    before = copy.deepcopy(trainer.averages()["robust"])
    found = train_to(trainer, 4).averages()
    for name, _ in trainer.expert("natural").model.named_parameters():
        for average in found.values():
            assert largest_difference([average[name]], [before[name]]) < 1e-6
    assert trainer.forward_images == N_IMAGES * sum(
        2 * update_cost(expert) for expert in config.experts
    )


def test_a_run_in_which_all_rest_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="all of them rest"):
        resting(resting(two_experts()), "natural")


def test_an_expert_that_would_never_be_trained_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"start_epoch=0 and robust would never"):
        resting(synced(start_epoch=0))
