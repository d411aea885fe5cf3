"""One step of an expert: loss under its attack, rate of its schedule, average, contribution."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from generalist_core.attacks.gradient import perturb
from generalist_core.config import (
    FGSM,
    MART,
    NFGSM,
    PGD,
    SGD,
    TRADES,
    AdamW,
    CutMix,
    ExpertConfig,
    MixUp,
    PiecewiseLinear,
    SeveralAttacks,
)
from generalist_core.models.build import build_model
from generalist_core.randomness import Noise, global_seed
from generalist_core.training.experts import Expert
from generalist_core.training.trainer import GeneralistTrainer
from tests.helpers.problems import (
    NATURAL,
    RADII,
    ROBUST,
    RUNS,
    LinearNet,
    clones,
    largest_difference,
    lengths,
    linear_net,
    noise,
    ratio,
    same_bits,
    tiny_dataset,
    tiny_split,
    two_experts,
    with_expert,
)

SHAPE = (1, 4, 4)
X, Y = tiny_split(8).images, tiny_split(8).labels
PLAIN_SGD = SGD(lr=0.1, momentum=0.0, weight_decay=0.0)


def expert(config: ExpertConfig = NATURAL, precision: Any = "float32", **mixing: Any) -> Expert:
    model = LinearNet((1, 4, 4), torch.float32)
    run = two_experts(mixing=ratio(0.5, **mixing), precision=precision)
    return Expert(config, model, run, n_classes=2, shape=SHAPE)


def numbers_of(changed: Expert, **others: float) -> dict[str, float]:
    return {name: column[0] for name, column in changed.numbers(1).items()} | others


def updated(changed: Expert, *, noise: Noise, progress: float = 0.0, x: Tensor = X) -> Tensor:
    """The loss of a step, which the expert makes."""
    lr = changed.config.optimizer.lr * changed.config.schedule(progress)
    return changed.update(x, Y, noise, numbers_of(changed, lr=lr))


def step(config: ExpertConfig, *, progress: float = 0.0) -> Expert:
    stepped = expert(config)
    updated(stepped, noise=noise(5), progress=progress)
    return stepped


def gradient_step(model: LinearNet, x: torch.Tensor, y: torch.Tensor, lr: float) -> list[Any]:
    """The weights after one step of plain gradient descent on the cross-entropy."""
    loss = F.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return [p.detach() - lr * g for p, g in zip(model.parameters(), gradients, strict=True)]


def test_a_natural_expert_descends_on_clean_images() -> None:
    config = dataclasses.replace(NATURAL, optimizer=PLAIN_SGD)
    expected = gradient_step(LinearNet((1, 4, 4), torch.float32), X, Y, 0.1)
    assert largest_difference(step(config).weights, expected) < 1e-7


def test_a_robust_expert_descends_on_adversarial_images() -> None:
    config = dataclasses.replace(ROBUST, optimizer=PLAIN_SGD)
    model = LinearNet((1, 4, 4), torch.float32)
    x_adv = perturb(ROBUST.attack, model, X, Y, noise(5))
    expected = gradient_step(model, x_adv, Y, 0.1)
    assert largest_difference(step(config).weights, expected) < 1e-7
    assert largest_difference(step(config).weights, gradient_step(model, X, Y, 0.1)) > 1e-4


@pytest.mark.parametrize(("progress", "lr"), [(0.0, 0.1), (0.25, 0.3), (0.5, 0.5), (1.0, 0.0)])
def test_the_schedule_scales_the_learning_rate(progress: float, lr: float) -> None:
    schedule = PiecewiseLinear(knots=(0, 0.5, 1), values=(1, 5, 0))
    config = dataclasses.replace(NATURAL, optimizer=PLAIN_SGD, schedule=schedule)
    expected = gradient_step(LinearNet((1, 4, 4), torch.float32), X, Y, lr)
    assert largest_difference(step(config, progress=progress).weights, expected) < 1e-7


@pytest.mark.parametrize("n_accumulations", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_a_gradient_is_scaled_down_to_its_largest_norm(
    precision: Any, n_accumulations: int
) -> None:
    """All parameters together; plain gradient descent then goes lr times that far."""
    run = two_experts(precision=precision, n_accumulations=n_accumulations)
    dtype = torch.float64 if precision == "float64" else torch.float32
    moves = {}
    for norm in (None, 0.01, 1e6):
        config = dataclasses.replace(ROBUST, optimizer=PLAIN_SGD, max_gradient_norm=norm)
        trained = Expert(config, LinearNet((1, 4, 4), dtype), run, n_classes=2, shape=SHAPE)
        before = clones(trained.weights)
        updated(trained, noise=noise(5), x=X.to(dtype))
        pairs = zip(trained.weights, before, strict=True)
        moves[norm] = torch.cat([(now - old).flatten() for now, old in pairs])
    assert torch.equal(moves[1e6], moves[None])
    assert moves[0.01].norm() == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert moves[None].norm() > 10 * moves[0.01].norm()
    assert F.cosine_similarity(moves[0.01], moves[None], dim=0) > 1 - 1e-5


def test_a_complex_gradient_is_scaled_down_too() -> None:
    config = dataclasses.replace(NATURAL, optimizer=PLAIN_SGD, max_gradient_norm=0.01)
    trained = Expert(config, ComplexNet(), two_experts(), n_classes=2, shape=SHAPE)
    before = clones(trained.weights)
    updated(trained, noise=noise())
    (move,) = (now - old for now, old in zip(trained.weights, before, strict=True))
    assert move.norm() == pytest.approx(0.1 * 0.01, rel=1e-3)


class ComplexNet(torch.nn.Module):
    """The sizes of complex sums of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(2, 16, dtype=torch.complex64, generator=torch.manual_seed(0))
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weight.real.T) - (x.flatten(1) @ self.weight.imag.T).abs()


def test_the_loss_is_the_batchs_mean_without_gradient() -> None:
    config = dataclasses.replace(NATURAL, label_smoothing=0.1)
    loss = updated(expert(config), noise=noise())
    logits = LinearNet((1, 4, 4), torch.float32)(X)
    torch.testing.assert_close(loss, F.cross_entropy(logits, Y, label_smoothing=0.1).detach())
    assert not loss.requires_grad


def test_mixed_images_train_with_mixed_labels() -> None:
    config = dataclasses.replace(NATURAL, optimizer=PLAIN_SGD, batch_augmentation=MixUp(alpha=1.0))
    trained = expert(config)
    assert trained.augment is not None
    with global_seed(1, torch.device("cpu")):
        updated(trained, noise=noise())
    with global_seed(1, torch.device("cpu")):
        x, y = trained.augment(X, Y)
    assert y.shape == (8, 2)
    expected = gradient_step(LinearNet((1, 4, 4), torch.float32), x, y, 0.1)
    assert largest_difference(trained.weights, expected) < 1e-7


MIXES: dict[str, tuple[MixUp | CutMix, v2.Transform]] = {
    "mixup": (MixUp(alpha=1.0), v2.MixUp(alpha=1.0, num_classes=2)),
    "cutmix": (CutMix(alpha=1.0), v2.CutMix(alpha=1.0, num_classes=2)),
}


@pytest.mark.parametrize("name", MIXES)
def test_an_attack_is_on_mixed_images_and_their_mixed_labels(name: str) -> None:
    """One step of FGSM on a linear model, whose gradient is the weights times p(1) - y(1)."""
    mixing, reference = MIXES[name]
    config = dataclasses.replace(
        ROBUST, attack=FGSM(epsilon=0.1), optimizer=PLAIN_SGD, batch_augmentation=mixing
    )
    trained, model = expert(config), LinearNet((1, 4, 4), torch.float32)
    with global_seed(1, torch.device("cpu")):
        updated(trained, noise=noise())
    with global_seed(1, torch.device("cpu")):
        x, y = reference(X, Y)
    assert not torch.equal(x, X)
    assert ((y > 0) & (y < 1)).any()
    ahead = (model(x).softmax(1)[:, 1] - y[:, 1]).detach()
    x_adv = (x + 0.1 * (ahead.view(-1, 1, 1, 1) * model.weight.detach()).sign()).clamp(0, 1)
    assert largest_difference(trained.weights, gradient_step(model, x_adv, y, 0.1)) < 1e-7
    # for the label of the larger part the attack would be another one
    one_label = 2 * y.argmax(1).view(-1, 1, 1, 1) - 1
    other = (x - 0.1 * one_label * model.weight.detach().sign()).clamp(0, 1)
    assert not torch.equal(other, x_adv)


@pytest.mark.parametrize("norm", RADII)
def test_an_attack_stays_in_the_ball_around_the_mixed_image(norm: Any) -> None:
    attack = PGD(epsilon=RADII[norm], norm=norm, steps=5)
    config = dataclasses.replace(ROBUST, attack=attack, batch_augmentation=CutMix())
    attacked = expert(config)
    assert attacked.augment is not None
    with global_seed(2, torch.device("cpu")):
        x, y = attacked.augment(X, Y)
    x_adv = attacked.craft(x, y, noise(), numbers_of(attacked))
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert lengths(x_adv - x, norm).max() <= RADII[norm] + 1e-6
    losses = [F.cross_entropy(attacked.model(each), y) for each in (x, x_adv)]
    assert losses[1] > losses[0]


def test_attacks_are_crafted_in_eval_mode_and_statistics_seen_once() -> None:
    model = build_model(two_experts().model, 2, (1, 4, 4), seed=0)
    robust = Expert(ROBUST, model, two_experts(), n_classes=2, shape=SHAPE)
    updated(robust, noise=noise())
    assert model.training
    assert model[1].num_batches_tracked == 1


@pytest.mark.parametrize("source", ["experts", "averages"])
def test_the_share_averages_its_part_of_the_source(source: str) -> None:
    trained = expert(source=source, decay=0.5, decay_warmup=False)
    updated(trained, noise=noise())
    before = clones(trained.contribution.weights)
    trained.update_contribution(0.3, rate=0.5)
    entering = trained.weights if source == "experts" else trained.average.weights
    expected = [0.5 * b + 0.5 * 0.3 * w for b, w in zip(before, entering, strict=True)]
    assert largest_difference(trained.contribution.weights, expected) < 1e-6


def test_the_average_takes_in_every_step() -> None:
    trained = expert(decay=0.25, decay_warmup=False)
    initial = clones(trained.weights)
    updated(trained, noise=noise())
    expected = [0.25 * w + 0.75 * new for w, new in zip(initial, trained.weights, strict=True)]
    assert largest_difference(trained.average.weights, expected) < 1e-6


def test_bfloat16_computes_in_bfloat16_and_answers_in_the_images_precision() -> None:
    model = build_model(two_experts().model, 2, (1, 4, 4), seed=0).eval()
    exact, coarse = (
        Expert(NATURAL, model, two_experts(precision=precision), n_classes=2, shape=SHAPE)
        .forwards.of_weights(X)
        .detach()
        for precision in ("float32", "bfloat16")
    )
    assert coarse.dtype == torch.float32
    assert not torch.equal(exact, coarse)
    assert torch.equal(coarse, coarse.bfloat16().float())
    torch.testing.assert_close(coarse, exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("norm", RADII)
def test_bfloat16_leaves_adversarial_images_in_float32_and_in_their_ball(
    norm: Any, folds: bool
) -> None:
    attack = PGD(epsilon=RADII[norm], norm=norm, steps=3)
    model = build_model(two_experts().model, 2, (1, 4, 4), seed=0)
    run = two_experts(precision="bfloat16", fold_batchnorm=folds)
    robust = Expert(
        dataclasses.replace(ROBUST, attack=attack), model, run, n_classes=2, shape=(1, 4, 4)
    )
    x_adv = robust.craft(X, Y, noise(), numbers_of(robust))
    assert x_adv.dtype == robust.forwards.of_weights(x_adv).dtype == torch.float32
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert lengths(x_adv - X, norm).max() <= RADII[norm] + 1e-6
    assert not torch.equal(x_adv, x_adv.bfloat16().float())


def test_an_expert_continues_from_its_state() -> None:
    config = dataclasses.replace(ROBUST, attack=PGD(epsilon=0.5, norm="l2", steps=2))
    first, second = step(config), expert(config)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for each in (first, second):
        updated(each, noise=noise(1), progress=0.5)
        each.update_contribution(0.3, rate=0.5)
    assert same_bits(first.state_dict(), second.state_dict())


def test_a_state_that_was_loaded_stays_as_it_was() -> None:
    """Else the second branch of a warm-up would start from what the first made of it."""
    state = copy.deepcopy(step(NATURAL).state_dict())
    before = copy.deepcopy(state)
    branch = expert(NATURAL)
    branch.load_state_dict(state)
    updated(branch, noise=noise(1), progress=0.5)
    branch.update_contribution(0.3, rate=0.5)
    assert same_bits(state, before)


# Parts of a batch

IN_PARTS: dict[str, ExpertConfig] = {
    "natural": NATURAL,
    "mixup": dataclasses.replace(NATURAL, batch_augmentation=MixUp(alpha=1.0)),
    "linf": ROBUST,
    "mixup under attack": dataclasses.replace(ROBUST, batch_augmentation=MixUp(alpha=1.0)),
    **{
        f"cutmix, {combine}": dataclasses.replace(
            RUNS[f"{combine} of norms"].experts[1], batch_augmentation=CutMix()
        )
        for combine in ("worst", "average", "random")
    },
    "l2": dataclasses.replace(ROBUST, attack=PGD(epsilon=0.5, norm="l2", steps=2)),
    "l1": dataclasses.replace(ROBUST, attack=PGD(epsilon=1.0, norm="l1", steps=2)),
    "n-fgsm": dataclasses.replace(ROBUST, attack=NFGSM(epsilon=0.1)),
    "trades": dataclasses.replace(
        ROBUST, attack=PGD(epsilon=0.1, steps=2, loss="kl"), loss=TRADES(), label_smoothing=0.1
    ),
    **{
        name: RUNS[name].experts[1]
        for name in ("worst of norms", "average of norms", "random of norms")
    },
    "clipped": dataclasses.replace(ROBUST, max_gradient_norm=0.01),
    "mart": dataclasses.replace(ROBUST, loss=MART(), optimizer=AdamW(lr=0.01)),
}


def stepped_in_parts(config: ExpertConfig, n_accumulations: int) -> tuple[Expert, torch.Tensor]:
    run = two_experts(precision="float64", n_accumulations=n_accumulations)
    parted = Expert(config, LinearNet((1, 4, 4)), run, n_classes=2, shape=SHAPE)
    with global_seed(1, torch.device("cpu")):
        loss = updated(parted, noise=noise(5), x=X.double())
    return parted, loss


@pytest.mark.parametrize("n_accumulations", [2, 3, 8])
@pytest.mark.parametrize("name", IN_PARTS)
def test_parts_of_a_batch_add_up_to_the_batch(name: str, n_accumulations: int) -> None:
    """Three parts of eight images differ in size."""
    whole, loss = stepped_in_parts(IN_PARTS[name], 1)
    parted, sum_of_losses = stepped_in_parts(IN_PARTS[name], n_accumulations)
    torch.testing.assert_close(sum_of_losses, loss, rtol=1e-12, atol=0)
    for a, b in zip(parted.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)
    assert largest_difference(parted.weights, whole.weights) < 1e-9
    assert largest_difference(parted.average.weights, whole.average.weights) < 1e-9


def test_all_parts_are_attacked_before_one_is_trained_on() -> None:
    """Else BatchNorm's statistics, and with them the attack, would move from part to part."""
    crafted = []
    for n_accumulations in (1, 4):
        model = build_model(two_experts().model, 2, (1, 4, 4), seed=0).double()
        run = two_experts(precision="float64", n_accumulations=n_accumulations)
        robust = Expert(ROBUST, model, run, n_classes=2, shape=SHAPE)
        seen: list[torch.Tensor] = []
        model.register_forward_pre_hook(
            lambda model, args, seen=seen: seen.append(args[0]) if model.training else None
        )
        updated(robust, noise=noise(5), x=X.double())
        crafted.append(torch.cat(seen))
    torch.testing.assert_close(*crafted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n_accumulations", "n_images"), [(1, 8), (2, 4), (3, 3), (8, 1)])
def test_the_model_sees_one_part_at_a_time(n_accumulations: int, n_images: int) -> None:
    run = two_experts(n_accumulations=n_accumulations)
    parted = Expert(ROBUST, LinearNet((1, 4, 4), torch.float32), run, n_classes=2, shape=SHAPE)
    seen: list[int] = []
    parted.model.register_forward_pre_hook(lambda model, args: seen.append(len(args[0])))
    updated(parted, noise=noise())
    assert max(seen) == n_images
    assert sum(seen) == 8 * (2 + 1)


def test_a_model_that_exists_is_neither_trained_nor_frozen() -> None:
    existing = linear_net(2, (1, 4, 4))
    before = copy.deepcopy(existing.state_dict())
    ends = []
    for _ in range(2):
        trainer = GeneralistTrainer(two_experts(), tiny_dataset(), model=lambda *_: existing)
        trainer.train_epoch()
        ends.append(trainer.state_dict())
    assert same_bits(existing.state_dict(), before)
    assert all(parameter.requires_grad for parameter in existing.parameters())
    assert same_bits(*ends)


ADAPTIVE = SeveralAttacks(
    parts=(PGD(epsilon=1.0, steps=2), PGD(epsilon=0.0, steps=2)), combine="adaptive"
)


def test_attacks_are_drawn_by_running_errors_which_a_stopped_training_keeps() -> None:
    """One is never withstood, and the other is in the end, as it changes nothing."""
    config = with_expert(two_experts(epochs=40), "robust", attack=ADAPTIVE)
    trainer = GeneralistTrainer(config, tiny_dataset())
    assert trainer.expert("robust").errors == [1.0, 1.0]
    for _ in range(20):
        trainer.train_epoch()
    strong, weak = trainer.expert("robust").errors
    assert weak < strong
    assert weak < 1.0
    again = GeneralistTrainer(config, tiny_dataset())
    again.load_state_dict(copy.deepcopy(trainer.state_dict()))
    assert again.expert("robust").errors == [strong, weak]
    trainer.train_epoch()
    assert again.expert("robust").errors == [strong, weak] != trainer.expert("robust").errors


@pytest.mark.parametrize("n_accumulations", [1, 3])
def test_the_running_error_is_that_of_the_images_that_are_trained_on(n_accumulations: int) -> None:
    config = with_expert(two_experts(), "robust", attack=ADAPTIVE)
    run = dataclasses.replace(config, n_accumulations=n_accumulations)
    learner, split = GeneralistTrainer(run, tiny_dataset()).expert("robust"), tiny_dataset().train
    crafted = learner.craft(split.images, split.labels, noise(), numbers_of(learner))
    with torch.no_grad():
        wrong = (learner.model(crafted).argmax(1) != split.labels).double().mean().item()
    assert sorted(learner.errors) == pytest.approx([0.9 + 0.1 * wrong, 1.0])


@pytest.mark.parametrize("n_accumulations", [1, 3])
def test_of_a_mixed_label_the_part_of_the_other_class_counts_as_an_error(
    n_accumulations: int,
) -> None:
    """Also in a batch of as many images as classes."""
    config = with_expert(two_experts(), "robust", attack=ADAPTIVE, batch_augmentation=MixUp())
    run = dataclasses.replace(config, n_accumulations=n_accumulations)
    learner, split = GeneralistTrainer(run, tiny_dataset()).expert("robust"), tiny_split(2)
    mixed = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    crafted = learner.craft(split.images, mixed, noise(), numbers_of(learner))
    with torch.no_grad():
        right = mixed[torch.arange(2), learner.model(crafted).argmax(1)].mean().item()
    assert sorted(learner.errors) == pytest.approx([0.9 + 0.1 * (1 - right), 1.0])
