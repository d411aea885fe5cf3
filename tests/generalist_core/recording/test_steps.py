"""Recorded steps are those that run as they are; a trace stands in for a GPU's recording."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from generalist_core.config import (
    PGD,
    SGD,
    AdamW,
    CustomAttack,
    CustomLoss,
    EarlierSettings,
    ExpertConfig,
    MixUp,
    PiecewiseLinear,
    RMSprop,
    TrainConfig,
)
from generalist_core.models.build import build_model
from generalist_core.models.state import fix_averaged
from generalist_core.randomness import GeneratorNoise
from generalist_core.recording.numbers import StepNumbers
from generalist_core.recording.steps import HeldNoise, Replay, side_by_side, why_not_recorded
from generalist_core.training import trainer as trainer_module
from generalist_core.training.experts import Expert
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmups import adopt_warmup, train_warmup, warmup_state
from tests.helpers.problems import (
    RUNS,
    largest_difference,
    linear_net,
    noise,
    ratio,
    same_bits,
    start,
    synced,
    tiny_dataset,
    train_to,
    two_experts,
    with_expert,
)
from tests.helpers.traces import Traces

GPU = torch.device("cuda")
REFUSED = {
    "mixup, mart",
    "cutmix, adam, rmsprop",
    "cutmix under attack, trades with mixup",
    "dropout",
    "random of norms",
    "adaptive of norms",
}
RECORDED = [name for name in RUNS if name not in REFUSED]


class Recorder(Traces):
    """Traces a step of its trainer, and puts back what the step changed."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer: GeneralistTrainer | None = None

    def __call__(self, function: Callable[[], Tensor]) -> Replay:
        assert self.trainer is not None
        *_, recorded = self.trainer._recordings.kept.values()
        tensors = recorded.tensors()
        before = [tensor.clone() for tensor in tensors]
        replay = self.trace(function)
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(old)
        return replay


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    def as_on_gpu(config: TrainConfig, device: torch.device) -> str | None:
        return why_not_recorded(config, GPU)

    monkeypatch.setattr(trainer_module, "why_not_recorded", as_on_gpu)
    return Recorder()


def recording(recorder: Recorder, config: TrainConfig, **others: Any) -> GeneralistTrainer:
    trainer = start(dataclasses.replace(config, cuda_graph=True), **others)
    trainer.record = recorder
    recorder.trainer = trainer
    return trainer


def long(config: TrainConfig) -> TrainConfig:
    """Batches of four: five steps an epoch, so that most of them are replayed."""
    return dataclasses.replace(config, batch_size=4)


def furthest(one: GeneralistTrainer, other: GeneralistTrainer) -> float:
    pairs = zip(one.experts, other.experts, strict=True)
    experts = [largest_difference(a.tensors, b.tensors) for a, b in pairs]
    return max(*experts, largest_difference(one.global_learner, other.global_learner))


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_ends_as_one_that_is_not(recorder: Recorder, name: str) -> None:
    """In float64 where the run has no precision of its own: attacks magnify rounding."""
    config = long(RUNS[name])
    if config.precision == "float32":
        config = dataclasses.replace(config, precision="float64")
    plain, recorded = start(config), recording(recorder, config)
    for _ in range(config.epochs):
        losses = [trainer.train_epoch() for trainer in (plain, recorded)]
        for key in losses[0].keys() - {"seconds"}:
            assert losses[0][key] == pytest.approx(losses[1][key], rel=1e-3), key
    assert recorded.replays
    assert not plain.replays
    assert recorder.n_replayed > 12
    assert recorder.n_recorded <= 3
    assert furthest(plain, recorded) < (2e-2 if config.precision == "bfloat16" else 1e-4)


def test_a_state_of_recorded_steps_is_that_of_others(recorder: Recorder) -> None:
    """Of the same types and counts, so either kind of run can go on from it."""
    config = long(RUNS["adamw, trades"])
    plain, recorded = train_to(start(config), 4), train_to(recording(recorder, config), 4)
    states = [trainer.state_dict()["experts"]["robust"] for trainer in (plain, recorded)]
    groups = [state["optimizer"]["param_groups"] for state in states]
    assert groups[0] == groups[1]
    assert states[0]["average"]["n_updates"] == states[1]["average"]["n_updates"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_state_is_loaded_into_its_places_and_what_was_recorded_goes_on(
    recorder: Recorder, momentum: float
) -> None:
    """Into those of optimizers, if they have any, and of the global learner."""
    config = long(two_experts())
    for name in ("natural", "robust"):
        config = with_expert(config, name, optimizer=SGD(lr=0.05, momentum=momentum))
    plain, recorded = train_to(start(config), 4), train_to(recording(recorder, config), 4)
    before, state = recorder.n_recorded, copy.deepcopy(recorded.state_dict())
    recorded.train_epoch()
    recorded.load_state_dict(state)
    for trainer in (plain, recorded):
        trainer.train_epoch()
    assert recorder.n_recorded == before
    assert furthest(plain, recorded) < 1e-4


def test_a_step_is_recorded_anew_when_tensors_have_moved(recorder: Recorder) -> None:
    config = long(two_experts())
    plain, recorded = train_to(start(config), 4), train_to(recording(recorder, config), 4)
    before = recorder.n_recorded
    for expert in recorded.experts:
        expert.average.weights[:] = [tensor.clone() for tensor in expert.average.weights]
    for trainer in (plain, recorded):
        trainer.train_epoch()
    assert recorder.n_recorded == before + 1
    assert furthest(plain, recorded) < 1e-4


def test_a_step_is_recorded_anew_when_settings_change(recorder: Recorder) -> None:
    """While it is trained, or with a state that is loaded."""
    few, many = PGD(epsilon=0.1, steps=2), PGD(epsilon=0.1, steps=5)
    optimizer = SGD(lr=0.05, momentum=0.0)
    past = EarlierSettings(until=2, attack=few, optimizer=optimizer)
    config = with_expert(
        long(synced(start_epoch=4)), "robust", attack=many, optimizer=optimizer, earlier=(past,)
    )
    plain, recorded = start(config), recording(recorder, config)
    ahead = start(config)
    for trainer, n_epochs in ((plain, 4), (recorded, 1), (ahead, 3)):
        for _ in range(n_epochs):
            train_warmup(trainer, "robust")
    adopt_warmup(recorded, "robust", copy.deepcopy(warmup_state(ahead, "robust")))
    train_warmup(recorded, "robust")
    assert recorder.n_recorded == 2
    states = [trainer.expert("robust").weights for trainer in (plain, recorded)]
    assert largest_difference(*states) < 1e-4


def test_an_epoch_without_a_rate_is_replayed_too(recorder: Recorder) -> None:
    """The last one of a schedule that ends at zero."""
    falling = PiecewiseLinear(knots=(0, 1), values=(1, 0))
    config = dataclasses.replace(long(two_experts()), epoch_progress="end")
    for name, optimizer in (("natural", AdamW(lr=0.01)), ("robust", SGD(lr=0.05))):
        config = with_expert(config, name, schedule=falling, optimizer=optimizer)
    plain = train_to(start(config), config.epochs)
    recorded = train_to(recording(recorder, config), config.epochs)
    assert recorder.n_recorded == 2
    assert furthest(plain, recorded) < 1e-4


def test_a_step_begins_anew_if_the_optimizer_is_another_before_it_is_recorded(
    recorder: Recorder,
) -> None:
    config = two_experts(batch_size=6)  # three steps an epoch
    other = with_expert(config, "robust", optimizer=AdamW())
    trainer = recording(recorder, config)
    train_to(trainer, 1)
    for run, n_epochs in ((other, 1), (config, 5)):
        assert trainer.begin_anew(dataclasses.replace(run, cuda_graph=True))
        train_to(trainer, n_epochs)
    assert trainer.replays
    assert furthest(train_to(start(config), 5), trainer) < 1e-4


def test_batches_of_another_size_are_recorded_anew(recorder: Recorder) -> None:
    plain, recorded = start(two_experts()), recording(recorder, two_experts())
    images, labels = tiny_dataset().train.images, tiny_dataset().train.labels
    for trainer in (plain, recorded):
        for n in (4, 6):
            trainer.train_epoch([(images[:n], labels[:n])] * 6)
    assert recorder.n_recorded == 2
    assert furthest(plain, recorded) < 1e-4


@pytest.mark.parametrize("name", RECORDED)
def test_the_next_run_replays_what_was_recorded(recorder: Recorder, name: str) -> None:
    """With other rates, decays, radii, ratios and seed, as the search suggests them."""
    config = long(dataclasses.replace(RUNS[name], precision="float64"))
    other = dataclasses.replace(config, seed=3, experts=tuple(map(rescaled, config.experts)))
    trainer = recording(recorder, config)
    train_to(trainer, config.epochs)
    n_recorded = recorder.n_recorded
    assert trainer.begin_anew(dataclasses.replace(other, cuda_graph=True))
    train_to(trainer, config.epochs)
    assert recorder.n_recorded == n_recorded
    assert furthest(train_to(start(other), config.epochs), trainer) < 1e-4


def rescaled(expert: ExpertConfig) -> ExpertConfig:
    """With half of each number that a recording does not fix."""

    def half(part: Any, *names: str) -> Any:
        held = {name: getattr(part, name) / 2 for name in names if hasattr(part, name)}
        if hasattr(part, "parts"):
            held["parts"] = tuple(half(each, *names) for each in part.parts)
        return dataclasses.replace(part, **held)

    attack = expert.attack and half(expert.attack, "epsilon", "relative_step_size", "noise_scale")
    optimizer = half(expert.optimizer, "lr", "weight_decay")
    return dataclasses.replace(
        expert, attack=attack, optimizer=optimizer, loss=half(expert.loss, "beta")
    )


def test_what_is_fixed_in_a_recording_is_recorded_anew(recorder: Recorder) -> None:
    config = long(two_experts())
    other = with_expert(config, "robust", attack=PGD(epsilon=0.1, steps=3))
    averages = dataclasses.replace(config, mixing=ratio(0.3, source="averages"))
    trainer = recording(recorder, config)
    train_to(trainer, config.epochs)
    n_recorded = recorder.n_recorded
    for run, n_more in ((other, 2), (config, 0), (averages, 2), (other, 0)):
        assert trainer.begin_anew(dataclasses.replace(run, cuda_graph=True))
        train_to(trainer, config.epochs)
        n_recorded += n_more
        assert recorder.n_recorded == n_recorded
        assert furthest(train_to(start(run), config.epochs), trainer) < 1e-4


class Operations(TorchDispatchMode):
    """The names of torch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))


def test_a_replayed_step_is_copies_and_noise_and_a_replay(recorder: Recorder) -> None:
    """No generator is made, and nothing is computed from the settings."""
    trainer = recording(recorder, long(two_experts()))
    images, labels = tiny_dataset().train.images[:4], tiny_dataset().train.labels[:4]
    trainer.train_epoch([(images, labels)] * 6)
    (recorded,) = trainer._recordings.kept.values()
    losses = torch.zeros(2)
    recorded.replay = lambda: losses
    found = []
    for n_steps in (1, 5):
        with Operations() as operations:
            trainer.learn(trainer.experts, [(images, labels)] * n_steps, [noise(), noise()])
        found.append(Counter(operations.names))
    more = found[1] - found[0]
    assert more == Counter(copy_=4 * 4, rand=4, select=4, clone=4)


@pytest.mark.parametrize("name", RECORDED)
def test_an_update_asks_its_device_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device no tensor has values, and none may meet one that is elsewhere.

    It knows no autocast and no fused optimizer; these are torch's own.
    """
    monkeypatch.setattr("torch.autocast", lambda *_, **__: contextlib.nullcontext())
    config = dataclasses.replace(RUNS[name], fold_batchnorm=False)
    model = build_model(config.model, 2, (1, 4, 4), seed=0)
    fix_averaged(model)
    x = torch.rand(4, 1, 4, 4, device="meta")
    y = torch.zeros(4, dtype=torch.long, device="meta")
    for settings in config.experts:
        moved = copy.deepcopy(model).to("meta")
        expert = Expert(settings, moved, config, n_classes=2, shape=(1, 4, 4))
        monkeypatch.setattr(expert.optimizer, "step", lambda: None)
        columns = {**expert.numbers(1), "lr": [0.1], "weight": [0.5]}
        numbers = StepNumbers(first=0, columns=columns)
        held = numbers.held_in(torch.ones(len(numbers.names), device="meta"))
        loss = expert.update(x, y, MetaNoise(), held)
        expert.update_contribution(held["weight"], held["average"])
        assert loss.device.type == "meta"
        assert {tensor.device.type for tensor in expert.tensors} == {"meta"}


class MetaNoise:
    """Noise without values."""

    def uniform(self, like: Tensor, /) -> Tensor:
        return torch.empty_like(like)

    normal = uniform


class Moody(nn.Module):
    """It decides in Python what it computes, by the number of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 2)
        self.n_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_calls += 1
        logits: Tensor = self.linear(x.flatten(1)) * (-1) ** self.n_calls
        return logits


def test_a_step_that_python_decides_is_found_out_and_runs_as_it_is(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = recording(recorder, long(two_experts()), model=lambda n_classes, shape: Moody())
    train_to(trainer, 2)
    assert recorder.n_recorded == recorder.n_replayed == 1
    assert "The step is not recorded, since its first replay was off by" in caplog.text


def test_what_was_not_compared_is_not_replayed(recorder: Recorder) -> None:
    """Memory may end between the recording and its check; the next run begins in this trainer."""

    def short_of_memory() -> Tensor:
        raise torch.OutOfMemoryError("planted")

    trainer = recording(recorder, long(two_experts()))
    trainer.record = lambda _: short_of_memory
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train_epoch()
    assert not trainer.replays


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted"), ValueError("ours")])
def test_what_cannot_be_recorded_runs_as_it_is_and_is_told(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(function: Callable[[], Tensor]) -> Replay:
        raise error

    config = long(two_experts())
    recorded = recording(recorder, config)
    recorded.record = refuse
    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="ours"):
            train_to(recorded, config.epochs)
        return
    train_to(recorded, config.epochs)
    assert "since RuntimeError: operation not permitted" in caplog.text
    assert furthest(train_to(start(config), config.epochs), recorded) < 1e-4


def test_a_model_that_draws_is_not_recorded(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Every step draws what it would draw without a recording."""
    config = long(RUNS["dropout"])
    plain, recorded = train_to(start(config), 5), train_to(recording(recorder, config), 5)
    assert recorder.n_replayed == recorder.n_recorded <= 3
    assert "since the model draws random numbers" in caplog.text
    assert furthest(plain, recorded) < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", RECORDED)
def test_a_gpu_replays_what_it_would_compute(name: str) -> None:
    """Up to what a GPU's sums differ by from call to call, which attacks magnify.

    In the next run, too, which differs in all numbers that are not fixed.
    """
    config = dataclasses.replace(long(RUNS[name]), device="cuda")
    other = dataclasses.replace(config, seed=3, experts=tuple(map(rescaled, config.experts)))
    recorded = start(dataclasses.replace(config, cuda_graph=True))
    for run in (config, other):
        assert run is config or recorded.begin_anew(dataclasses.replace(run, cuda_graph=True))
        plain = train_to(start(run), run.epochs)
        train_to(recorded, run.epochs)
        assert recorded.replays
        assert furthest(plain, recorded) < 2e-2


CANNOT = {
    "off": (two_experts(), "`cuda_graph` is false"),
    "parts": (two_experts(cuda_graph=True, n_accumulations=2), "`n_accumulations`"),
    "mixup": (
        with_expert(two_experts(cuda_graph=True), "natural", batch_augmentation=MixUp()),
        "`batch_augmentation`",
    ),
    "rmsprop": (
        with_expert(two_experts(cuda_graph=True), "robust", optimizer=RMSprop()),
        "RMSprop, of expert 'robust'",
    ),
    **{
        f"{combine} attack": (
            dataclasses.replace(RUNS[f"{combine} of norms"], cuda_graph=True),
            "the attack of expert 'robust' is drawn",
        )
        for combine in ("random", "adaptive")
    },
    "own attack": (
        with_expert(
            two_experts(cuda_graph=True),
            "robust",
            attack=CustomAttack(
                function="tests.helpers.custom_functions:attack", epsilon=0.1, forward_images=1
            ),
        ),
        "function of the user's",
    ),
    "own loss": (
        with_expert(
            two_experts(cuda_graph=True),
            "robust",
            loss=CustomLoss(function="tests.helpers.custom_functions:loss", n_forwards=1),
        ),
        "function of the user's",
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_the_reason_is_named(name: str) -> None:
    config, reason = CANNOT[name]
    assert reason in str(why_not_recorded(config, GPU))


def test_a_cpu_records_nothing_and_a_gpu_what_is_plain() -> None:
    config = two_experts(cuda_graph=True)
    assert why_not_recorded(config, torch.device("cpu")) == "only a GPU can replay"
    assert why_not_recorded(config, GPU) is None
    assert same_bits(
        train_to(start(config, model=linear_net), 3).experts[0].weights,
        train_to(start(two_experts(), model=linear_net), 3).experts[0].weights,
    )


def test_held_noise_is_what_its_source_would_draw_in_the_same_places() -> None:
    held, like = HeldNoise(), torch.zeros(2, 3)
    places: list[int] = []
    for seed in (1, 2):
        held.refill(noise(seed))
        drawn = [held.normal(like), held.uniform(like[:, 0])]
        fresh: GeneratorNoise = noise(seed)
        assert same_bits(drawn, [fresh.normal(like), fresh.uniform(like[:, 0])])
        places += [tensor.data_ptr() for tensor in drawn]
    assert places[:2] == places[2:]


def test_tasks_outside_a_recording_run_in_their_order() -> None:
    done: list[int] = []

    def task(n: int) -> Tensor:
        done.append(n)
        return torch.tensor(n)

    results: Sequence[Tensor] = side_by_side([lambda: task(0), lambda: task(1)])
    assert [int(result) for result in results] == done == [0, 1]
