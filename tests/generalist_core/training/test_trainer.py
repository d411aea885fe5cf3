"""Laws 2 and 3, the global learner, syncs and mixtures, on runs of five tiny epochs."""

from __future__ import annotations

import copy
import dataclasses
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generalist_core.config import (
    SGD,
    Constant,
    Cosine,
    DataConfig,
    ExpertConfig,
    ModelConfig,
    OneCycle,
    PiecewiseLinear,
    RatioSchedule,
    Schedule,
    SyncConfig,
    TrainConfig,
)
from generalist_core.config.codec import to_dict
from generalist_core.config.mixing import GLOBAL
from generalist_core.config.norms import corners_and_centre
from generalist_core.config.presets import short
from generalist_core.data.datasets import load_dataset
from generalist_core.models.build import build_model
from generalist_core.training.averaging import load_weights, mix, named, weights_of
from generalist_core.training.cost import evaluation_cost
from generalist_core.training.evaluator import evaluate
from generalist_core.training.trainer import DivergedError, GeneralistTrainer
from generalist_core.training.warmups import warmup_keys
from generalist_core.validation import InvalidConfigError
from tests import ROOT
from tests.helpers.problems import (
    NATURAL,
    ROBUST,
    RUNS,
    SPARSE,
    clones,
    dropout_net,
    finish_runs,
    largest_difference,
    linear_net,
    ratio,
    resumed,
    same_bits,
    start,
    three_experts,
    tiny_dataset,
    tiny_split,
    train_to,
    two_experts,
    with_expert,
)

FALLING = PiecewiseLinear(knots=(0, 1), values=(1, 0))

PLAIN = DataConfig(name="tiny", n_validation=12)

EPOCHS_TO_STOP = (1, 2, 3)
"""Before the first sync, at it, and after it."""


def trained(config: TrainConfig, epoch: int) -> GeneralistTrainer:
    return train_to(start(config), epoch)


# Law 2: resume


def test_the_stops_lie_around_the_first_sync() -> None:
    assert {config.sync.start_epoch for config in RUNS.values()} == {0, 2}
    assert {config.epochs for config in RUNS.values()} == {5}


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_ends_as_if_it_had_never_stopped(name: str, tmp_path: Path) -> None:
    config, trainer = RUNS[name], start(RUNS[name])
    for epoch in EPOCHS_TO_STOP:
        torch.save(train_to(trainer, epoch).state_dict(), tmp_path / f"{epoch}.pt")
    expected = train_to(trainer, config.epochs)
    for epoch in EPOCHS_TO_STOP:
        torch.rand(epoch)
        again = resumed(config, tmp_path / f"{epoch}.pt")
        assert again.epoch == epoch
        assert same_bits(train_to(again, config.epochs).state_dict(), expected.state_dict())
        assert same_bits(again.global_learner, expected.global_learner)


def test_a_checkpoint_of_cotraining_has_nothing_that_no_step_reads() -> None:
    """The global learner has taken the place of contributions; what rests makes no step."""
    warming, cotraining = (trained(RUNS["resting"], epoch).state_dict() for epoch in (1, 3))
    assert all(state["contribution"] for state in warming["experts"].values())
    assert [state["contribution"] for state in cotraining["experts"].values()] == [None, None]
    assert warming["experts"]["robust"]["optimizer"]["state"]
    assert not cotraining["experts"]["robust"]["optimizer"]["state"]
    assert cotraining["experts"]["natural"]["optimizer"]["state"]


@pytest.mark.slow
def test_a_run_resumed_in_a_new_process_ends_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    ends = {}
    for name, config in RUNS.items():
        trainer = start(config)
        for epoch in EPOCHS_TO_STOP:
            torch.save(train_to(trainer, epoch).state_dict(), tmp_path / f"{name}@{epoch}.pt")
        ends[name] = train_to(trainer, config.epochs).state_dict()
    code = f"from {finish_runs.__module__} import finish_runs; finish_runs({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    for name, expected in ends.items():
        for epoch in EPOCHS_TO_STOP:
            found = torch.load(tmp_path / f"{name}@{epoch}.end", weights_only=True)
            assert same_bits(found, expected), (name, epoch)


def test_a_checkpoint_of_another_configuration_is_refused() -> None:
    state = start(two_experts()).state_dict()
    with pytest.raises(InvalidConfigError, match=r"of this configuration.* in batch_size, seed\."):
        start(two_experts(seed=1, batch_size=5)).load_state_dict(state)


def test_a_checkpoint_may_lack_a_field_that_a_later_version_has() -> None:
    state = start(two_experts()).state_dict()
    assert state["config"]["evaluation"].pop("objectives") is None
    start(two_experts()).load_state_dict(state)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_checkpoint_of_other_images_is_refused(split: str) -> None:
    state, data = start(two_experts()).state_dict(), tiny_dataset()
    images = getattr(data, split).images.clone()
    images[-1, 0, 0, 0] = 1 - images[-1, 0, 0, 0]
    changed = dataclasses.replace(getattr(data, split), images=images)
    trainer = GeneralistTrainer(two_experts(), dataclasses.replace(data, **{split: changed}))
    with pytest.raises(InvalidConfigError, match=rf"of others.* own {state['images']}.*that it"):
        trainer.load_state_dict(state)
    start(two_experts()).load_state_dict(state)


# Law 3: sharing


@pytest.mark.parametrize(
    "partners",
    [(NATURAL, ROBUST), (ROBUST, NATURAL), (ROBUST, SPARSE)],
    ids=lambda partners: "+".join(partner.name for partner in partners),
)
@pytest.mark.parametrize("model", ["convnet", "tests.helpers.problems:dropout_net"])
def test_in_the_warm_up_an_expert_does_not_notice_its_partners(
    partners: tuple[Any, ...], model: str
) -> None:
    alone = two_experts(
        experts=(dataclasses.replace(NATURAL, name="other"), ROBUST),
        mixing=ratio(0.9),
        model=ModelConfig(name=model, width=2 if model == "convnet" else None),
        evaluation=dataclasses.replace(two_experts().evaluation, every_epochs=1),
    )
    beside = dataclasses.replace(alone, experts=partners, mixing=ratio(0.2))
    states = []
    for config in (alone, beside):
        trainer = trained(config, 2)
        (robust,) = (e for e in trainer.experts if e.config.name == "robust")
        states.append(robust.state_dict())
    assert same_bits(*states)


@pytest.mark.parametrize("source", ["experts", "averages"])
def test_a_run_from_shared_warm_ups_ends_as_one_that_trained_its_own(source: Any) -> None:
    """The natural warm-up comes from one run, the robust one from another, at other ratios."""
    config = two_experts(mixing=ratio(0.3, source=source))
    donors = [
        trained(dataclasses.replace(config, mixing=ratio(r, source=source)), 2) for r in (0.8, 0.1)
    ]
    trainer = start(config)
    for expert, donor in zip(trainer.experts, donors, strict=True):
        (lent,) = (e for e in donor.experts if e.config.name == expert.config.name)
        expert.load_state_dict(lent.state_dict())
    trainer.epoch = 2
    expected = trained(config, 5)
    assert same_bits(train_to(trainer, 5).averages(), expected.averages())
    assert same_bits(trainer.global_learner, expected.global_learner)


def test_an_epoch_does_not_depend_on_the_epochs_before_it() -> None:
    straight, jumped = trained(two_experts(), 1), start(two_experts())
    for expert, own in zip(jumped.experts, straight.experts, strict=True):
        expert.load_state_dict(copy.deepcopy(own.state_dict()))
    jumped.epoch = 1
    first, second = straight.train_epoch(), jumped.train_epoch()
    for name in ("loss/natural", "loss/robust"):
        assert first[name] == second[name]
    assert same_bits(straight.averages(), jumped.averages())


def test_the_seed_decides_everything() -> None:
    first, same, other = (trained(two_experts(seed=seed), 3) for seed in (1, 1, 2))
    assert same_bits(first.averages(), same.averages())
    assert not same_bits(first.averages(), other.averages())


def test_training_and_judging_leave_the_global_random_state() -> None:
    state = torch.get_rng_state()
    trainer = trained(RUNS["dropout"], 3)
    trainer.evaluate()
    trainer.release()
    assert torch.equal(torch.get_rng_state(), state)


# The global learner


@pytest.mark.parametrize("decay_warmup", [True, False], ids=["warm-up", "plain"])
@pytest.mark.parametrize("source", ["experts", "averages"])
@pytest.mark.parametrize(
    "values", [(0.3, 0.3), (1.0, 0.2), ((1.0, 0.0, 0.0), (0.2, 0.3, 0.5))], ids=str
)
def test_the_global_learner_is_the_average_of_mixtures(
    values: tuple[Any, ...], source: Any, decay_warmup: bool
) -> None:
    """Tracked by hand over epochs of one step, through the first sync (before epoch 4)."""
    make = three_experts if isinstance(values[0], tuple) else two_experts
    config = make(
        mixing=ratio(*values, source=source, decay_warmup=decay_warmup),
        sync=SyncConfig(start_epoch=4, every_epochs=2),
        precision="float64",
        epochs=7,
    )
    trainer = start(config)
    batch = [(trainer.train_split.images[:8].double(), trainer.train_split.labels[:8])]
    expected = clones(trainer.experts[0].weights)
    assert largest_difference(trainer.global_learner, expected) < 1e-12
    for step in range(7):
        trainer.train_epoch(batch)
        decay = config.mixing.decay_at(step)
        mixture = mix([e.source for e in trainer.experts], config.weights_at(step))
        expected = [decay * g + (1 - decay) * m for g, m in zip(expected, mixture, strict=True)]
        assert largest_difference(trainer.global_learner, expected) < 1e-12, f"step {step}"


def test_at_a_constant_ratio_it_is_the_mixture_of_the_averages() -> None:
    trainer = trained(two_experts(mixing=ratio(0.3), precision="float64"), 2)
    assert largest_difference(trainer.global_learner, trainer.mixture(0.3)) < 1e-12
    assert largest_difference(trainer.global_learner, trainer.mixture(0.4)) > 1e-6


# Syncs, seen at learning rate 0: from half of the run on (where they begin) weights do not change


def synced(**changes: Any) -> tuple[GeneralistTrainer, list[Tensor], list[list[Tensor]]]:
    """A linear run after one step of its first sync epoch; the learner and momenta before it."""
    frozen = PiecewiseLinear(knots=(0.0, 0.5, 1.0), values=(1.0, 0.0, 0.0))
    optimizer = SGD(lr=0.1, momentum=0.9, weight_decay=0.0)
    config = two_experts(
        experts=tuple(
            dataclasses.replace(e, optimizer=optimizer, schedule=frozen) for e in (NATURAL, ROBUST)
        ),
        sync=SyncConfig(start_epoch=2, every_epochs=2, **changes),
        epochs=4,
        batch_size=20,
    )
    trainer = train_to(start(config, model=linear_net), 2)
    learner = clones(trainer.global_learner)
    momenta = [
        clones(e.optimizer.state[p]["momentum_buffer"] for p in e.model.parameters())
        for e in trainer.experts
    ]
    trainer.train_epoch()
    return trainer, learner, momenta


@pytest.mark.parametrize("at", ["boundary", "every_step"])
def test_a_sync_makes_every_expert_the_global_learner(at: Any) -> None:
    trainer, learner, _ = synced(at=at)
    expected = learner if at == "boundary" else trainer.global_learner
    for expert in trainer.experts:
        assert same_bits(expert.weights, expected)


def test_without_a_sync_experts_stay_apart() -> None:
    trainer = trained(two_experts(), 2)
    assert largest_difference(*(expert.weights for expert in trainer.experts)) > 1e-4


@pytest.mark.parametrize("restart", [False, True])
def test_momentum_survives_a_sync_unless_restarted(restart: bool) -> None:
    trainer, _, momenta = synced(restart_momentum=restart)
    for expert, before in zip(trainer.experts, momenta, strict=True):
        for parameter, old in zip(expert.model.parameters(), before, strict=True):
            found = expert.optimizer.state[parameter]["momentum_buffer"]
            kept = 0.0 if restart else 0.9
            torch.testing.assert_close(found, kept * old + parameter.grad)
            assert old.abs().max() > 1e-3


@pytest.mark.parametrize("restart", [False, True])
def test_averages_survive_a_sync_unless_restarted(restart: bool) -> None:
    trainer, learner, _ = synced(restart_averages=restart)
    for expert in trainer.experts:
        same = largest_difference(expert.average.weights, learner) < 1e-6
        assert same == restart
        assert expert.average.n_updates == (1 if restart else 3)


def test_metrics_tell_the_sync_epochs_the_rates_and_the_weights() -> None:
    trainer = start(three_experts(mixing=ratio((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))))
    metrics = [trainer.train_epoch() for _ in range(5)]
    assert [m["synced"] for m in metrics] == [0, 0, 1, 0, 1]
    assert [m["epoch"] for m in metrics] == [1, 2, 3, 4, 5]
    assert [m["weight/robust"] for m in metrics] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert [m["lr/natural"] for m in metrics] == pytest.approx([0.1] * 5)
    assert trainer.is_done


@pytest.mark.parametrize(("per_step", "rates"), [(False, [1.0, 1.0]), (True, [1.0, 0.9])])
def test_a_schedule_moves_by_epoch_or_by_step(per_step: bool, rates: list[float]) -> None:
    """Five epochs of two steps; a rate that falls from 1 to 0."""
    line = dataclasses.replace(FALLING, per_step=per_step)
    config = with_expert(two_experts(), "natural", schedule=line, optimizer=SGD(lr=1.0))
    trainer = start(config)
    found = []

    def batches() -> Any:
        x, y = trainer.train_split.images[:8], trainer.train_split.labels[:8]
        for _ in range(2):
            yield x, y
            found.append(trainer.experts[0].optimizer.param_groups[0]["lr"])

    trainer.train_epoch(batches())
    assert found == pytest.approx(rates)


RISING: dict[str, tuple[Schedule, float, list[float]]] = {
    "one epoch": (Constant(), 1, [1 / 2, 1, 1, 1]),
    "half an epoch": (Constant(), 0.5, [1, 1, 1, 1]),
    "two epochs": (Constant(), 2, [1 / 4, 2 / 4, 3 / 4, 1]),
    "a part": (Constant(), 1.5, [1 / 3, 2 / 3, 1, 1]),
    "beyond the schedule's steps": (FALLING, 2, [1 / 4, 2 / 4, 3 / 4 * 0.8, 0.8]),
    "cosine": (
        Cosine(),
        1,
        [1 / 2, *(0.5 + 0.5 * math.cos(math.pi * step / 10) for step in (1, 2, 3))],
    ),
    "one cycle": (
        OneCycle(peak=0.4, initial=0.2),
        1.5,
        [0.2 / 3, 0.4 * 2 / 3, 0.6, 0.8],
    ),
}


@pytest.mark.parametrize("name", RISING)
def test_a_warm_up_of_the_rate_rises_by_step_and_scales_any_schedule(name: str) -> None:
    """Five epochs of two steps, of which two epochs are looked at."""
    schedule, epochs, expected = RISING[name]
    config = with_expert(
        two_experts(), "natural", schedule=schedule, lr_warmup_epochs=epochs, optimizer=SGD(lr=1.0)
    )
    trainer, found = start(config), []

    def batches() -> Any:
        for batch in trainer.batches(0):
            yield batch
            found.append(trainer.experts[0].optimizer.param_groups[0]["lr"])

    told = [trainer.train_epoch(batches())["lr/natural"] for _ in range(2)]
    assert found == pytest.approx(expected)
    assert told == [found[0], found[2]]


# Precision


@pytest.mark.slow
def test_bfloat16_trains_as_well_as_float32_on_the_digits() -> None:
    """Within three standard deviations of the difference of two accuracies on 500 images."""
    data = load_dataset(short().data)
    released = []
    for precision in ("float32", "bfloat16"):
        config = dataclasses.replace(short(epochs=8), precision=precision, device="cpu")
        released.append(train_to(GeneralistTrainer(config, data), 8).release([0.5, 1.0]))
    for exact, coarse in zip(*released, strict=True):
        for name, fraction in exact.accuracies.items():
            noise = 3 * math.sqrt(2 * fraction * (1 - fraction) / exact.n_images)
            assert coarse.accuracies[name] == pytest.approx(fraction, abs=noise), (exact, coarse)
        assert exact.accuracies["robust"] > 0.2


# Mixtures


def test_the_ends_of_the_ratio_are_the_experts_averages() -> None:
    trainer = trained(two_experts(), 3)
    for ratio_, expert in zip((0.0, 1.0), trainer.experts, strict=True):
        assert same_bits(trainer.mixture(ratio_), expert.average.weights)
        assert same_bits(
            list(trainer.averages()[expert.config.name].values()), expert.average.weights
        )


@pytest.mark.parametrize("ratio_", [0.25, (0.75, 0.25)])
def test_a_mixture_is_linear_buffers_included(ratio_: Any) -> None:
    trainer = trained(two_experts(precision="float64"), 3)
    natural, robust = (expert.average.weights for expert in trainer.experts)
    expected = [0.75 * a + 0.25 * b for a, b in zip(natural, robust, strict=True)]
    assert largest_difference(trainer.mixture(ratio_), expected) < 1e-15
    assert len(expected) == len(weights_of(trainer.experts[0].model))


def test_released_points_are_the_mixtures_accuracies() -> None:
    config = dataclasses.replace(RUNS["three experts"], seed=3)
    trainer = trained(config, 5)
    points = trainer.release()
    released = [*config.evaluation.release_ratios, GLOBAL]
    assert [point.mixing_ratio for point in points] == released
    model = build_model(config.model, 2, (1, 4, 4), seed=9).eval()
    for point in points:
        weights = trainer.released(point.mixing_ratio)
        load_weights(model, dict(zip(model_names(trainer), weights, strict=True)))
        verdicts = evaluate(
            model, tiny_dataset().validation, config.evaluation, seed=3, dtype=torch.float32
        )
        assert point.accuracies == {name: v.double().mean() for name, v in verdicts.items()}
        assert point.n_images == 12


def model_names(trainer: GeneralistTrainer) -> list[str]:
    return list(trainer.averages()["natural"])


def test_ratios_to_release_can_be_given() -> None:
    trainer = trained(two_experts(), 1)
    assert [point.mixing_ratio for point in trainer.release([0.1, 0.9])] == [0.1, 0.9]


@pytest.mark.parametrize("wrong", [1.2, -0.1, (0.5, 0.5, 0.0), (0.9, 0.3)])
def test_a_wrong_ratio_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidConfigError):
        start(two_experts()).mixture(wrong)


def test_judging_changes_nothing_that_trains() -> None:
    judged, plain = start(two_experts()), start(two_experts())
    for trainer in (judged, plain):
        for _ in range(4):
            trainer.train_epoch()
            if trainer is judged:
                trainer.evaluate()
                trainer.release()
    assert same_bits(judged.state_dict()["experts"], plain.state_dict()["experts"])
    assert same_bits(judged.global_learner, plain.global_learner)


def accuracies(*learners: str, objectives: Sequence[str]) -> set[str]:
    return {f"accuracy/{learner}/{name}" for learner in learners for name in objectives}


def test_experts_are_judged_before_the_first_sync_and_the_global_learner_from_it_on() -> None:
    trainer, objectives = start(three_experts()), ("natural", "robust", "sparse")
    attacked = accuracies("robust", "sparse", objectives=objectives)
    before = attacked | accuracies("natural", objectives=["natural"]) | {"forward_images"}
    for _ in range(trainer.config.sync.start_epoch):
        assert set(trainer.evaluate()) == before
        trainer.train_epoch()
    assert set(trainer.evaluate()) == before
    after = accuracies("global", objectives=objectives) | {"forward_images"}
    while not trainer.is_done:
        trainer.train_epoch()
        metrics = trainer.evaluate()
        assert set(metrics) == after
        assert all(0 <= metrics[name] <= 1 for name in metrics if "/" in name)


def test_what_is_in_training_is_judged_on_the_first_images_that_releases_are_judged_on() -> None:
    """Accuracies on 5 images are multiples of 1/5, and those of their split alone."""
    evaluation = dataclasses.replace(two_experts().evaluation, n_images_during_training=5)
    trainer = trained(two_experts(evaluation=evaluation), 3)
    model = build_model(trainer.config.model, 2, (1, 4, 4), seed=9).eval()
    load_weights(model, dict(zip(model_names(trainer), trainer.global_learner, strict=True)))
    first = tiny_dataset().validation.take(torch.arange(5))
    verdicts = evaluate(model, first, evaluation, seed=0, dtype=torch.float32)
    found = trainer.evaluate()
    for name, verdict in verdicts.items():
        assert found[f"accuracy/global/{name}"] == verdict.double().mean()
    assert trainer.release([0.5])[0].n_images == 12


def test_the_global_learner_is_released_after_a_sync_unless_it_is_not_asked_for() -> None:
    config = two_experts()
    trainer, names = start(config), ["natural", "robust"]
    for _ in range(config.sync.start_epoch):
        assert GLOBAL not in [point.mixing_ratio for point in trainer.release()]
        assert list(trainer.averages()) == names
        trainer.train_epoch()
    assert not trainer.releases_global
    trainer.train_epoch()
    point = trainer.release()[-1]
    assert point == trainer.release([GLOBAL])[0]
    assert point.accuracies == trainer.judge(GLOBAL, attacked=True)
    assert same_bits(list(trainer.averages()[GLOBAL].values()), trainer.global_learner)
    without = dataclasses.replace(config.evaluation, release_global=False)
    other = trained(dataclasses.replace(config, evaluation=without), trainer.epoch)
    assert other.release() == trainer.release()[:-1]
    assert list(other.averages()) == names


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run.global_ratio])
def test_a_global_learner_that_is_a_released_mixture_is_not_judged_again(name: str) -> None:
    config, ratio = RUNS[name], RUNS[name].global_ratio
    evaluation = dataclasses.replace(config.evaluation, release_ratios=(ratio,))
    trainer = trained(dataclasses.replace(config, evaluation=evaluation), config.epochs)
    assert largest_difference(trainer.mixture(ratio), trainer.global_learner) < 1e-6
    assert [point.mixing_ratio for point in trainer.release()] == [ratio]


def test_most_global_learners_are_no_mixtures() -> None:
    for name in ("official", "restarting", "resting", "three experts"):
        trainer = trained(RUNS[name], RUNS[name].epochs)
        ratio = RUNS[name].mixing.ratio.values[0]
        assert trainer.config.global_ratio is None
        assert largest_difference(trainer.mixture(ratio), trainer.global_learner) > 1e-3


def test_two_experts_release_refined_ratios_too_and_at_the_same_accuracies() -> None:
    evaluation = dataclasses.replace(two_experts().evaluation, n_refinements=2)
    config = with_expert(two_experts(evaluation=evaluation), "natural", optimizer=SGD(lr=0.5))
    config = dataclasses.replace(config, epochs=30, sync=SyncConfig(start_epoch=29))
    data = dataclasses.replace(tiny_dataset(), validation=tiny_split(200, seed=1))
    trainer = train_to(GeneralistTrainer(config, data), 12)
    points = trainer.release()
    assert [point.mixing_ratio for point in points[:3]] == [0.0, 0.5, 1.0]
    assert len(points) == 5
    assert trainer.release([point.mixing_ratio for point in points]) == points


def test_three_experts_release_refined_ratios_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the front has room: here between the natural expert and the others."""
    evaluation = dataclasses.replace(
        three_experts().evaluation,
        n_refinements=2,
        objectives=("natural", "union"),
        release_ratios=corners_and_centre(3),
    )
    trainer = start(three_experts(evaluation=evaluation))

    judge_released = trainer.judge_released

    def accuracies(ratio: tuple[float, ...]) -> dict[str, float]:
        judge_released(ratio)  # which counts the cost
        return {"natural": ratio[0] ** 0.5, "union": (1 - ratio[0]) ** 0.5}

    monkeypatch.setattr(trainer, "judge_released", accuracies)
    points = trainer.release()
    ratios = [point.mixing_ratio for point in points]
    assert ratios[:4] == list(corners_and_centre(3))
    assert len(set(ratios)) == 6
    assert trainer.forward_images == 6 * 12 * evaluation_cost(evaluation)
    assert trainer.release(ratios) == points


# Training trains


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_losses_fall_in_every_precision(precision: Any) -> None:
    trainer = start(two_experts(precision=precision, epochs=15, data=PLAIN))
    losses = [trainer.train_epoch() for _ in range(15)]
    for name in ("loss/natural", "loss/robust"):
        assert losses[-1][name] < 0.7 * losses[0][name]
    kept = torch.float64 if precision == "float64" else torch.float32
    assert {tensor.dtype for tensor in trainer.global_learner} == {kept}
    assert trainer.evaluate()["accuracy/global/natural"] > 0.8


def test_an_absurd_learning_rate_diverges_by_name() -> None:
    config = with_expert(two_experts(), "robust", optimizer=SGD(lr=1e30))
    trainer = start(config, model=linear_net)
    with pytest.raises(DivergedError, match=r"Expert 'robust' diverged in epoch \d"):
        train_to(trainer, 5)


def test_a_model_that_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(
        InvalidConfigError, match=r"must give one image logits of shape \(1, 2\), but got \(1, 3\)"
    ):
        start(
            two_experts(),
            model=lambda n, shape: torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(16, n + 1)
            ),
        )


@pytest.mark.parametrize(
    ("n_outputs", "end", "message"),
    [
        (2, torch.nn.Softmax(1), "must give logits, but got probabilities.* Remove the softmax"),
        (1, torch.nn.Identity(), r"got \(1, 1\)\. Give a single logit z as the two logits"),
        (1, torch.nn.Sigmoid(), r"got \(1, 1\)\. Give a single logit z as the two logits"),
        (1, torch.nn.Flatten(0), r"got \(1,\)\. Give a single logit z as the two logits"),
    ],
)
def test_probabilities_and_a_single_logit_are_refused(
    n_outputs: int, end: torch.nn.Module, message: str
) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, n_outputs), end)
    with pytest.raises(InvalidConfigError, match=message):
        start(two_experts(), model=lambda n, shape: net)


def test_the_state_is_plain_and_of_this_configuration() -> None:
    state = trained(two_experts(), 3).state_dict()
    assert state["config"] == to_dict(two_experts())
    rest = {"images", "epoch", "forward_images", "experts", "global", "best"}
    assert set(state) == {"config", *rest}


def test_experts_begin_with_equal_weights_of_their_own() -> None:
    first, second = start(two_experts()).experts
    assert same_bits(first.weights, second.weights)
    first.weights[0].zero_()
    assert not same_bits(first.weights, second.weights)


@pytest.mark.parametrize("expert", [ROBUST, NATURAL], ids=["attack", "dropout"])
def test_noise_differs_between_experts_steps_and_epochs(expert: ExpertConfig) -> None:
    """Twins of other names, whose weights do not change, see one batch again and again."""
    still = dataclasses.replace(expert, schedule=PiecewiseLinear(knots=(0, 1), values=(0, 0)))
    twins = tuple(dataclasses.replace(still, name=name) for name in ("one", "other"))
    model = linear_net if expert is ROBUST else dropout_net
    trainer = start(two_experts(experts=twins), model=model)
    batch = (trainer.train_split.images, trainer.train_split.labels)
    losses = [
        metrics[f"loss/{name}"]
        for n_steps in (1, 1, 2)
        for metrics in [trainer.train_epoch([batch] * n_steps)]
        for name in ("one", "other")
    ]
    trainer.epoch = 0
    again = trainer.train_epoch([batch])
    two_steps = start(two_experts(experts=twins), model=model).train_epoch([batch] * 2)
    losses.append(two_steps["loss/one"])
    assert len(set(losses)) == 7
    assert (again["loss/one"], again["loss/other"]) == (losses[0], losses[1])


def test_a_schedule_of_ratios_is_read_at_the_epochs_fraction_of_the_run() -> None:
    mixing = dataclasses.replace(
        ratio(0.5), ratio=RatioSchedule(knots=(0, 0.4, 1), values=(1, 0, 0))
    )
    trainer = start(two_experts(mixing=mixing))
    found = [trainer.train_epoch()["weight/natural"] for _ in range(5)]
    assert found == pytest.approx([0, 0.5, 1, 1, 1])


# Weights to begin from, and parameters that are not trained


def saved_net(file: Path, **changes: Any) -> TrainConfig:
    """`two_experts`, which begin from trained weights in a file."""
    model = build_model(two_experts().model, 2, (1, 4, 4), seed=7).train()
    model(tiny_split(8).images)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, file)
    return two_experts(model=ModelConfig(name="convnet", width=2, init=str(file), **changes))


@pytest.mark.parametrize("source", ["experts", "averages"])
def test_all_learners_begin_from_the_weights_in_a_file(source: Any, tmp_path: Path) -> None:
    config = saved_net(tmp_path / "weights.pt")
    trainer = start(dataclasses.replace(config, mixing=ratio(0.5, source=source)))
    state = torch.load(tmp_path / "weights.pt")["state_dict"]
    for expert in trainer.experts:
        expected = [state[name] for name in model_names(trainer)]
        assert same_bits(expert.weights, expected)
        assert same_bits(expert.average.weights, expected)
        assert same_bits(trainer.global_learner, expected)
    assert not same_bits(start(two_experts()).experts[0].weights, expected)


def test_a_model_from_python_begins_from_the_file_too(tmp_path: Path) -> None:
    torch.save(linear_net(2, (1, 4, 4)).state_dict(), tmp_path / "weights.pt")
    config = two_experts(model=ModelConfig(init=str(tmp_path / "weights.pt")))

    def zeros(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
        model = linear_net(n_classes, shape)
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        return model

    begun, other = start(config, model=zeros), start(two_experts(), model=linear_net)
    assert same_bits(begun.experts[0].weights, other.experts[0].weights)
    assert begun.experts[0].weights[0].any()


def test_a_run_from_a_file_resumes_and_shares_by_its_content(tmp_path: Path) -> None:
    config = saved_net(tmp_path / "weights.pt")
    torch.save(train_to(start(config), 3).state_dict(), tmp_path / "3.pt")
    ended = train_to(resumed(config, tmp_path / "3.pt"), 5)
    assert same_bits(ended.state_dict(), train_to(start(config), 5).state_dict())
    shutil.copy(tmp_path / "weights.pt", tmp_path / "copy.pt")
    moved = dataclasses.replace(config.model, init=str(tmp_path / "copy.pt"))
    others = two_experts(model=moved), two_experts()
    keys, same, none = (warmup_keys(start(c), "robust") for c in (config, *others))
    assert keys == same
    assert not set(keys) & set(none)
    torch.save(torch.load(tmp_path / "3.pt")["experts"]["robust"]["model"], config.model.init)
    with pytest.raises(InvalidConfigError, match=r"weights\.pt` must be as it was"):
        start(ended.config)
    assert not set(keys) & set(warmup_keys(start(config), "robust"))


def test_frozen_parameters_stay_to_the_bit_and_the_others_are_trained() -> None:
    """Through syncs at every step, whose mixtures are rounded."""
    trainer = start(dataclasses.replace(RUNS["frozen"], mixing=ratio(0.1, 0.37)))
    before = {n: p.detach().clone() for n, p in trainer.experts[0].model.named_parameters()}
    train_to(trainer, 5)
    assert trainer.config.sync.is_sync(2)
    for expert in trainer.experts:
        now = dict(expert.model.named_parameters())
        kept = {name for name in before if torch.equal(before[name], now[name])}
        assert kept == {"0.weight", "1.bias", "4.bias", "7.bias", "11.bias"}
        found = named(expert.model, trainer.global_learner)
        for name in kept:
            torch.testing.assert_close(found[name], before[name])


def test_a_key_sees_what_is_frozen() -> None:
    names = [(), ("0.*",), ("0.weight",), ("0.*", "1.*")]
    keys = [
        warmup_keys(start(two_experts(model=ModelConfig(width=2, frozen=frozen))), "robust")[0]
        for frozen in names
    ]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("layer1.*",), "must fit a name of a parameter, but 'layer1.*' fits none"),
        (("0.weigt",), "Did you mean 0.weight?"),
        (("0.*", "0.WEIGHT"), "'0.WEIGHT' fits none"),
        (("1.running_mean",), "'1.running_mean' fits none"),
        (("*",), "At least one parameter must require a gradient"),
    ],
)
def test_a_pattern_that_fits_no_parameter_is_refused(frozen: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidConfigError) as error:
        start(two_experts(model=ModelConfig(width=2, frozen=frozen)))
    assert message in str(error.value)
