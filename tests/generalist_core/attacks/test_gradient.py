"""Law 4: attacks stay in ball and box, reach the optimum, cost what they say, touch nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from generalist_core.attacks.balls import BALLS
from generalist_core.attacks.counting import Counted
from generalist_core.attacks.gradient import (
    Logits,
    cross_entropy_of,
    drawn,
    input_gradient,
    margin,
    n_gradients,
    perturb,
)
from generalist_core.config import (
    FGSM,
    NFGSM,
    PGD,
    Attack,
    ModelConfig,
    MultiTargeted,
    SeveralAttacks,
)
from generalist_core.config.suite import standard_pgd
from generalist_core.models.build import build_model
from tests.helpers.problems import (
    ATTACKS,
    BOUNDED_ATTACKS,
    NORM_ATTACKS,
    RADII,
    TARGETED,
    Counting,
    LinearNet,
    clones,
    lengths,
    linear_optimum,
    n_forwards,
    noise,
    random_images,
)

FLOATS = [(torch.float32, 1e-5), (torch.float64, 1e-12)]
Y = torch.tensor([0, 1, 1, 0, 1])


def conv_net(dtype: torch.dtype) -> nn.Module:
    config = ModelConfig(name="convnet", width=2)
    return build_model(config, 3, (2, 4, 4), seed=0).to(dtype).eval()


@pytest.mark.parametrize(("dtype", "tolerance"), FLOATS)
@pytest.mark.parametrize("attack", [*BOUNDED_ATTACKS, *TARGETED], ids=str)
def test_adversarial_images_stay_in_ball_and_box(
    attack: FGSM | PGD | MultiTargeted, dtype: torch.dtype, tolerance: float
) -> None:
    x = random_images(5, 2, 4, 4, dtype=dtype)
    x[0] = x[0].round()
    adversarial = perturb(attack, conv_net(dtype), x, Y, noise())
    assert adversarial.dtype == dtype
    assert not adversarial.requires_grad
    assert lengths(adversarial - x, attack.norm).max() <= attack.epsilon + tolerance
    assert lengths(adversarial - x, attack.norm).max() > 0.1 * attack.epsilon
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


@pytest.mark.parametrize("noise_scale", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("relative_step_size", [0.5, 1.25])
def test_n_fgsm_stays_in_the_box_and_within_noise_and_step(
    noise_scale: float, relative_step_size: float
) -> None:
    attack = NFGSM(epsilon=0.1, noise_scale=noise_scale, relative_step_size=relative_step_size)
    x = random_images(5, 2, 4, 4)
    adversarial = perturb(attack, conv_net(torch.float64), x, Y, noise())
    largest = lengths(adversarial - x, "linf").max()
    assert largest <= (noise_scale + relative_step_size) * 0.1 + 1e-12
    assert largest > 0.1 * relative_step_size - 1e-12
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 1.0])
@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize(
    ("norm", "epsilon", "low", "high"),
    [
        ("linf", 0.1, 0.3, 0.7),
        ("linf", 0.4, 0.0, 1.0),
        ("l2", 0.25, 0.3, 0.7),
        ("l1", 0.25, 0.3, 0.7),
        ("l1", 3.0, 0.0, 1.0),
    ],
    ids=["linf", "linf, box active", "l2", "l1", "l1, box active"],
)
def test_pgd_reaches_the_optimum_of_a_linear_model(
    norm: str,
    epsilon: float,
    low: float,
    high: float,
    loss: str,
    momentum: float,
    random_start: bool,
) -> None:
    model, x = LinearNet((2, 3, 3)), random_images(5, 2, 3, 3, low=low, high=high)
    attack = PGD(
        epsilon=epsilon,
        norm=norm,
        steps=120,
        loss=loss,
        momentum=momentum,
        random_start=random_start,
    )
    adversarial = perturb(attack, model, x, Y, noise())
    optimum = linear_optimum(norm, model, x, Y, epsilon)
    torch.testing.assert_close(model.margin(adversarial, Y), model.margin(optimum, Y))
    torch.testing.assert_close(adversarial, optimum, rtol=0, atol=1e-6)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("low_and_high", [(0.3, 0.7), (0.0, 1.0), (-0.5, 1.5)])
@pytest.mark.parametrize(
    ("norm", "epsilon", "least", "mean"),
    [
        ("linf", 0.1, 1 - 1e-9, 1 - 1e-9),
        ("l1", 0.25, 0.95, 0.995),
        ("l1", 2.0, 0.95, 0.99),
        ("l1", 5.0, 0.95, 0.99),
    ],
)
@pytest.mark.parametrize("steps", [2, 3, 5, 7, 10, 20])
def test_the_default_path_gains_nearly_what_the_optimum_of_a_linear_model_does(
    norm: str,
    epsilon: float,
    least: float,
    mean: float,
    low_and_high: tuple[float, float],
    random_start: bool,
    steps: int,
) -> None:
    """The box is met by more and more pixels; where it is widest, half of them begin there."""
    model, y = LinearNet((2, 6, 6)), torch.arange(40) % 2
    low, high = low_and_high
    x = random_images(40, 2, 6, 6, low=low, high=high).clamp(0, 1)
    best = model.margin(linear_optimum(norm, model, x, y, epsilon), y) - model.margin(x, y)
    standard = standard_pgd(norm, epsilon, steps, is_margin=True)
    attack = dataclasses.replace(standard, random_start=random_start)
    gain = model.margin(perturb(attack, model, x, y, noise()), y) - model.margin(x, y)
    assert (gain / best).min() > least
    assert (gain / best).mean() > mean


@pytest.mark.parametrize("norm", RADII)
def test_the_ball_shrinks_to_its_radius_before_the_last_steps(norm: str) -> None:
    """Ten images are looked at: three in thrice the ball, three in twice, four in the ball."""
    x, seen = random_images(5, 2, 4, 4), []
    net = conv_net(torch.float64)
    attack = PGD(epsilon=RADII[norm], norm=norm, relative_step_size=1.0)
    perturb(attack, lambda images: (seen.append(images.detach()), net(images))[1], x, Y, noise())
    farthest = [float(lengths(image - x, norm).max()) / RADII[norm] for image in seen]
    factors = [3.0] * 3 + [2.0] * 3 + [1.0] * 4 if norm == "l1" else [1.0] * 10
    assert farthest[1:] == pytest.approx(factors[1:])
    assert farthest[0] <= factors[0] + 1e-12


@pytest.mark.parametrize("norm", RADII)
def test_fgsm_is_the_optimum_of_a_linear_model_away_from_the_box(norm: str) -> None:
    model, x = LinearNet((2, 3, 3)), random_images(5, 2, 3, 3, low=0.3, high=0.7)
    adversarial = perturb(FGSM(epsilon=0.25, norm=norm), model, x, Y, noise())
    torch.testing.assert_close(adversarial, linear_optimum(norm, model, x, Y, 0.25))


@pytest.mark.parametrize(("norm", "dual"), [("linf", "l1"), ("l2", "l2"), ("l1", "linf")])
def test_the_kl_attack_moves_a_linear_model_as_far_as_the_ball_allows(norm: str, dual: str) -> None:
    model, x = LinearNet((2, 3, 3)), random_images(5, 2, 3, 3, low=0.3, high=0.7)
    attack = PGD(epsilon=0.25, norm=norm, steps=120, loss="kl")
    adversarial = perturb(attack, model, x, Y, noise())
    moved = (model.margin(adversarial, Y) - model.margin(x, Y)).abs()
    farthest = 0.25 * lengths(model.ascent(Y), dual)
    torch.testing.assert_close(moved, farthest, rtol=1e-6, atol=0)


def test_the_kl_attack_starts_where_its_authors_do() -> None:
    """At the image plus 0.001 times a standard normal draw, in ball and box."""
    x, seen = random_images(5, 2, 4, 4), []
    net = conv_net(torch.float64)
    attack = PGD(epsilon=0.1, steps=2, loss="kl")
    perturb(attack, lambda images: (seen.append(images.detach()), net(images))[1], x, Y, noise())
    assert torch.equal(seen[0], x)
    torch.testing.assert_close(seen[1], (x + 0.001 * noise().normal(x)).clamp(0, 1))


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
def test_other_attacks_start_anywhere_in_the_ball(loss: str) -> None:
    x, seen = random_images(5, 2, 4, 4), []
    net = conv_net(torch.float64)
    attack = PGD(epsilon=0.1, steps=2, loss=loss)
    perturb(attack, lambda images: (seen.append(images.detach()), net(images))[1], x, Y, noise())
    start = (x + 0.1 * (2 * noise().uniform(x) - 1)).clamp(0, 1)
    torch.testing.assert_close(seen[0], start)


def test_n_fgsm_takes_its_gradient_in_the_box() -> None:
    """The update of the authors' code, written out."""
    x, seen = random_images(5, 2, 4, 4), []
    net = conv_net(torch.float64)
    attack = NFGSM(epsilon=0.2)
    adversarial = perturb(
        attack, lambda images: (seen.append(images.detach()), net(images))[1], x, Y, noise()
    )
    noisy = (x + 0.4 * (2 * noise().uniform(x) - 1)).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(noisy), Y), noisy)
    torch.testing.assert_close(seen[0], noisy.detach())
    torch.testing.assert_close(adversarial, (noisy + 0.2 * gradient.sign()).clamp(0, 1).detach())


def test_n_fgsm_without_noise_is_fgsm() -> None:
    model, x = conv_net(torch.float64), random_images(5, 2, 4, 4)
    without_noise = perturb(NFGSM(epsilon=0.1, noise_scale=0.0), model, x, Y, noise())
    torch.testing.assert_close(without_noise, perturb(FGSM(epsilon=0.1), model, x, Y, noise()))


FACTORS = {"linf": [1.0] * 10, "l2": [3.0] * 3 + [2.0] * 3 + [1.0] * 4}
FACTORS["l1"] = FACTORS["l2"]


@pytest.mark.parametrize("norm", RADII)
def test_a_target_is_approached_by_ever_smaller_steps_in_ever_smaller_balls(norm: str) -> None:
    """The update of the first target, written out, for images that are right at first."""
    model, x = conv_net(torch.float64), random_images(5, 2, 4, 4)
    y, epsilon, ball = model(x).argmax(1), 0.1 * RADII[norm], BALLS[norm]
    target = model(x).topk(2).indices[:, 1]
    delta = ball.project(ball.start(x, FACTORS[norm][0] * epsilon, noise()), x, 3 * epsilon)
    for step, factor in enumerate(FACTORS[norm]):
        moved = (x + delta).requires_grad_()
        logits = model(moved)
        (gradient,) = torch.autograd.grad(
            (logits[range(5), target] - logits[range(5), y]).sum(), moved
        )
        length = factor * (1 - step / 10) * (6 if norm == "l1" else 2) * epsilon
        moved_by = length * ball.steepest(gradient, x, delta, factor * epsilon)
        delta = ball.project(delta + moved_by, x, [*FACTORS[norm], 1.0][step + 1] * epsilon)
    attack = MultiTargeted(epsilon=epsilon, norm=norm, n_targets=1)
    torch.testing.assert_close(perturb(attack, model, x, y, noise()), x + delta)


@pytest.mark.parametrize("norm", RADII)
def test_images_are_attacked_until_they_are_misclassified(norm: str) -> None:
    """Each target breaks some images; the broken ones stay as they are, and cost nothing more."""
    weight = torch.randn(3, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[2] *= 5  # the nearest class is not always that of the next logit

    def model(images: torch.Tensor) -> torch.Tensor:
        return (images - 0.5).flatten(1) @ weight.T

    x = random_images(90, 2, 4, 4)
    y = (model(x).argmax(1) + (torch.arange(90) % 5 == 0)) % 3
    fates, counted = [x], Counted(model)
    for n_targets in (1, 2, 3):
        attack = MultiTargeted(epsilon=0.4 * RADII[norm], norm=norm, steps=3, n_targets=n_targets)
        counted = Counted(model)
        fates.append(perturb(attack, counted, x, y, noise()))
    right = [model(images).argmax(1) == y for images in fates]
    left = [int(each.sum()) for each in right]
    assert 90 > left[0] == 72 > left[1] > left[2] > 0
    assert left[3] == left[2]  # of three classes only two are wrong
    for before, after, fine in zip(fates, fates[1:], right, strict=False):
        assert torch.equal(before[~fine], after[~fine])
    assert counted.forward_images == 90 + 4 * (left[0] + left[1])
    assert counted.gradient_images == 3 * (left[0] + left[1])


def test_over_confident_models_are_attacked_by_their_logits() -> None:
    """The gradient of their cross-entropy is zero in float32, of which PGD knows nothing."""
    model, x = LinearNet((2, 3, 3), torch.float32), random_images(40, 2, 3, 3, dtype=torch.float32)
    model.bias.data.fill_(-0.5 * model.weight.sum())
    y = model(x).argmax(1)

    def confident(images: torch.Tensor) -> torch.Tensor:
        return 1e6 * model(images)

    def left(attack: Attack, logits_of: Logits) -> int:
        return int((model(perturb(attack, logits_of, x, y, noise())).argmax(1) == y).sum())

    targeted = MultiTargeted(epsilon=0.1)
    assert left(targeted, confident) == left(targeted, model) < 20
    assert left(PGD(epsilon=0.1), model) < 20
    assert left(PGD(epsilon=0.1), confident) > 30


def test_momentum_accumulates_gradients_of_l1_norm_1() -> None:
    """The update of Dong et al. 2018, algorithm 1, written out for two steps."""
    model, x = conv_net(torch.float64), random_images(5, 2, 4, 4)
    attack = PGD(epsilon=0.1, norm="l2", steps=2, momentum=0.7, random_start=False)
    velocity, delta = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(2):
        moved = (x + delta).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(moved), Y), moved)
        velocity = 0.7 * velocity + gradient / lengths(gradient, "l1").view(-1, 1, 1, 1)
        delta = delta + 0.025 * velocity / lengths(velocity, "l2").view(-1, 1, 1, 1)
        delta = (x + delta).clamp(0, 1) - x
    torch.testing.assert_close(perturb(attack, model, x, Y, noise()), x + delta)


def test_the_margin_is_positive_exactly_where_misclassified() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [2.0, 2.5, -1.0]])
    assert torch.equal(margin(logits, torch.tensor([0, 2, 1])), torch.tensor([-1.0, 4.0, -0.5]))


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_the_number_of_gradients_is_as_claimed(attack: Attack) -> None:
    model = Counting(conv_net(torch.float64)).eval()
    perturb(attack, model, random_images(5, 2, 4, 4), Y, noise())
    assert model.n_calls == n_forwards(attack)
    assert n_gradients(attack) == getattr(attack, "steps", 1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("attack", [*ATTACKS, *TARGETED], ids=str)
def test_attacks_touch_nothing(attack: Attack, training: bool) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3).double()).train(training)
    model = model if training else conv_net(torch.float64)
    x = random_images(5, 2, 4, 4)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    weights, image, state = clones(model.state_dict().values()), x.clone(), torch.get_rng_state()
    with torch.no_grad():
        perturb(attack, model, x, Y, noise())
    assert model.training == training
    assert torch.equal(x, image)
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, model.state_dict().values(), weights))
    assert all(torch.equal(p.grad, torch.full_like(p, 7.0)) for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "attack",
    [
        NFGSM(epsilon=0.0),
        *(dataclasses.replace(attack, epsilon=0.0) for attack in TARGETED),
        *(FGSM(epsilon=0.0, norm=norm) for norm in RADII),
        *(PGD(epsilon=0.0, norm=norm, loss="kl", steps=2) for norm in RADII),
        *(PGD(epsilon=0.0, norm=norm, momentum=0.5, steps=2) for norm in RADII),
    ],
    ids=str,
)
def test_at_radius_0_the_image_comes_back(attack: Attack, dtype: torch.dtype) -> None:
    x = random_images(5, 2, 4, 4, dtype=dtype)
    assert torch.equal(perturb(attack, conv_net(dtype), x, Y, noise()), x)


@pytest.mark.parametrize("attack", [*ATTACKS, *TARGETED], ids=str)
def test_each_image_is_attacked_by_itself(attack: Attack) -> None:
    """With noise that is the same for all, an image's fate does not depend on its batch."""

    class EqualNoise:
        def uniform(self, like: torch.Tensor, /) -> torch.Tensor:
            return noise(1).uniform(like[:1]).expand_as(like)

        def normal(self, like: torch.Tensor, /) -> torch.Tensor:
            return noise(2).normal(like[:1]).expand_as(like)

    model, x = conv_net(torch.float64), random_images(5, 2, 4, 4)
    together = perturb(attack, model, x, Y, EqualNoise())
    alone = [perturb(attack, model, x[i : i + 1], Y[i : i + 1], EqualNoise()) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-9)


def test_several_attacks_follow_one_another_in_an_average() -> None:
    model, x, source = conv_net(torch.float64), random_images(5, 2, 4, 4), noise()
    expected = [perturb(part, model, x, Y, source) for part in NORM_ATTACKS]
    several = SeveralAttacks(parts=NORM_ATTACKS, combine="average")
    assert torch.equal(perturb(several, model, x, Y, noise()), torch.cat(expected))


def test_the_worst_of_several_attacks_is_that_of_each_image() -> None:
    """An image for which each attack is the worst, and the radii decide which."""
    model, x = conv_net(torch.float64), random_images(60, 2, 4, 4)
    y = torch.arange(60) % 3
    parts = tuple(
        dataclasses.replace(part, epsilon=part.epsilon * factor)
        for part, factor in zip(NORM_ATTACKS, (2.0, 1.0, 1.0), strict=True)
    )
    source = noise()
    each = torch.stack([perturb(part, model, x, y, source) for part in parts])
    worst = perturb(SeveralAttacks(parts=parts), model, x, y, noise())

    def losses(images: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(images), y, reduction="none")

    highest, which = torch.stack([losses(images) for images in each]).max(0)
    assert torch.equal(losses(worst), highest)
    assert {*which.tolist()} == {0, 1, 2}
    assert all(torch.equal(worst[i], each[k, i]) for i, k in enumerate(which.tolist()))


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_the_steepest_path_loses_no_less_than_the_first_step_of_each_attack(steps: int) -> None:
    """On a linear model of two classes, where no later step lowers the loss; one step is equal."""
    model, x = LinearNet((2, 4, 4)), random_images(60, 2, 4, 4)
    y = torch.arange(60) % 2
    parts = tuple(
        PGD(epsilon=epsilon, norm=norm, steps=steps, relative_step_size=0.3, random_start=False)
        for norm, epsilon in (("linf", 0.1), ("l2", 0.5), ("l1", 1.5))
    )

    def losses(images: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(images), y, reduction="none")

    found = losses(perturb(SeveralAttacks(parts=parts, combine="steepest"), model, x, y, noise()))
    gradient, nothing = input_gradient(model, x, cross_entropy_of(y)), torch.zeros_like(x)
    first = []
    for part in parts:
        ball = BALLS[part.norm]
        step = part.step_size * ball.steepest(gradient, x, nothing, part.epsilon)
        first.append(losses(x + ball.project(step, x, part.epsilon)))
    highest, which = torch.stack(first).max(0)
    assert {*which.tolist()} != {0}
    assert (found >= highest - 1e-12).all()
    if steps == 1:
        torch.testing.assert_close(found, highest, rtol=0, atol=1e-12)
    else:
        assert (found > highest + 1e-3).all()


def test_the_steepest_path_ends_in_one_of_the_balls() -> None:
    model, x = conv_net(torch.float64), random_images(60, 2, 4, 4)
    y, parts = torch.arange(60) % 3, NORM_ATTACKS
    parts = tuple(dataclasses.replace(part, steps=5) for part in parts)
    several = SeveralAttacks(parts=parts, combine="steepest")
    crafted = perturb(several, model, x, y, noise())
    assert torch.equal(crafted, perturb(several, model, x, y, noise(1)))
    sizes = {"linf": torch.inf, "l2": 2, "l1": 1}
    inside = torch.stack(
        [
            torch.linalg.vector_norm((crafted - x).flatten(1), sizes[part.norm], 1)
            <= part.epsilon + 1e-9
            for part in parts
        ]
    )
    assert inside.any(0).all()
    assert crafted.min() >= 0
    assert crafted.max() <= 1
    losses = [F.cross_entropy(model(images), y, reduction="sum") for images in (x, crafted)]
    assert losses[1] > losses[0]


def test_one_of_several_attacks_is_drawn_for_a_batch() -> None:
    """Each is drawn about equally often, and then attacks with the noise that follows."""
    model, x = conv_net(torch.float64), random_images(5, 2, 4, 4)
    several = SeveralAttacks(parts=NORM_ATTACKS, combine="random")
    source = noise()
    which = [drawn(several, x, source) for _ in range(300)]
    assert min(which.count(k) for k in range(3)) > 70
    which = [drawn(several, x, source, [0.6, 0.2, 0.2]) for _ in range(300)]
    assert [which.count(k) / 300 for k in range(3)] == pytest.approx([0.6, 0.2, 0.2], abs=0.09)
    which = [drawn(several, x, source, [0.0, 1.0, 0.0]) for _ in range(2000)]
    assert {*which} == {0, 1, 2}
    assert which.count(1) > 1900
    for seed in range(5):
        rest = noise(seed)
        one = NORM_ATTACKS[drawn(several, x, rest)]
        expected = perturb(one, model, x, Y, rest)
        assert torch.equal(perturb(several, model, x, Y, noise(seed)), expected)
