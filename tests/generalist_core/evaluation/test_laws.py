"""Planted faults: each must end in its error, or be found under its name and no other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generalist_core.attacks.counting import CountingModel
from generalist_core.attacks.gradient import fgsm, pgd
from generalist_core.attacks.laws import audited, require_gradients, require_in_ball
from generalist_core.config import FGSM, PGD, Norm
from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.indicators import (
    INDICATORS,
    Indicator,
    Probe,
    above_chance,
    library_warnings,
    loss_still_moving,
    order_violations,
    probed_indicators,
    reduced_budget,
    rises_with_epsilon,
    significant_excess,
    square_stronger,
)
from generalist_core.evaluation.laws import (
    require_claim,
    require_natural_at_zero,
    require_sound_model,
    untouched,
)
from generalist_core.randomness import GeneratorNoise, generator
from generalist_core.validation import EvaluationError, InvalidConfigError
from tests.helpers.planted import (
    Detached,
    Flattened,
    NotANumber,
    Quantised,
    Randomised,
    Scaled,
    ScaledFar,
    Softmax,
    digits,
    natural_net,
)

CPU = torch.device("cpu")


def probe(model: nn.Module, epsilon: float = 0.1, **changes: Any) -> Probe:
    split = digits(changes.pop("n", 64))
    settings: dict[str, Any] = {"norm": "linf", "seed": 0, **changes}
    frozen_model = frozen(model, CPU)
    return Probe(
        logits_of=frozen_model, x=split.images, y=split.labels, epsilon=epsilon, **settings
    )


def noise() -> GeneratorNoise:
    return GeneratorNoise(generator(CPU, 0, "test"))


def bits(text: str) -> Tensor:
    return torch.tensor([letter == "1" for letter in text])


# The model


def in_train_mode() -> nn.Module:
    net = frozen(natural_net(), CPU)
    next(iter(net.children())).train()
    return net


@pytest.mark.parametrize(
    ("build", "law"),
    [
        (in_train_mode, "a model in eval mode"),
        (Softmax, "outputs are logits"),
        (NotANumber, "logits are numbers"),
        (Flattened, "logits of shape"),
        (Detached, "logits differentiable"),
        (lambda: natural_net(3), "a logit for each label"),
    ],
)
def test_unsound_models_are_refused(build: Any, law: str) -> None:
    split = digits(32)
    with pytest.raises(EvaluationError, match=f"`{law}.*` must hold, but got"):
        require_sound_model(build(), split.images, split.labels)


def test_a_sound_model_tells_its_classes() -> None:
    split = digits(32)
    with untouched(natural_net()):
        assert require_sound_model(natural_net(), split.images, split.labels) == 10


# The attack


def audit(craft: Any, *, epsilon: float = 0.1, claimed: int = 0, norm: Norm = "linf") -> Tensor:
    x = digits(8).images
    model = CountingModel(frozen(natural_net(), CPU))
    most = claimed * len(x)
    return audited("planted", craft, model, x, norm=norm, epsilon=epsilon, claimed=(most, most))


def test_an_attack_that_claims_more_steps_than_it_runs_is_caught() -> None:
    split = digits(8)
    attack = PGD(epsilon=0.1, steps=10)

    def craft(model: CountingModel) -> Tensor:
        return pgd(attack, model, split.images, split.labels, noise())

    audit(craft, claimed=10)
    with pytest.raises(EvaluationError, match=r"planted takes 160 input gradients.*but got 80"):
        audit(craft, claimed=20)


def test_a_lower_bound_on_gradients() -> None:
    require_gradients("apgd-ce", (10, None), 12)
    with pytest.raises(EvaluationError, match="at least 10 input gradients"):
        require_gradients("apgd-ce", (10, None), 9)


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (lambda x: (x + 0.2).clamp(0, 1), "stays in the linf ball of radius 0.1"),
        (lambda x: x - 0.05, r"stays in \[0, 1\]"),
        (lambda x: x * torch.nan, "yields numbers"),
        (lambda x: x[:4], "keeps the shape"),
    ],
)
def test_images_outside_ball_or_box_are_caught(change: Any, law: str) -> None:
    x = digits(8).images
    with pytest.raises(EvaluationError, match=f"planted {law}"):
        audit(lambda model: change(x))


@pytest.mark.parametrize(("norm", "length"), [("linf", 0.1), ("l2", 0.8), ("l1", 6.4)])
def test_each_norm_has_its_ball(norm: Norm, length: float) -> None:
    x = torch.full((3, 1, 8, 8), 0.5)
    require_in_ball("planted", x + 0.1, x, norm=norm, epsilon=length)
    with pytest.raises(EvaluationError, match=f"the {norm} ball"):
        require_in_ball("planted", x + 0.1, x, norm=norm, epsilon=0.999 * length)


# The verdicts


def test_a_claim_that_recomputation_does_not_confirm_is_caught() -> None:
    require_claim("square", bits("1100"), bits("1110"))
    with pytest.raises(EvaluationError, match=r"its claim of 0.5000.*got 1.0000 \(2 of 4"):
        require_claim("square", bits("1100"), bits("1111"))


def test_an_attack_of_radius_zero_that_changes_verdicts_is_caught() -> None:
    require_natural_at_zero(bits("1101"), bits("1101"))
    with pytest.raises(EvaluationError, match=r"natural 0\.7500` must hold, but got 0\.5"):
        require_natural_at_zero(bits("1101"), bits("1100"))


def test_a_model_that_hides_when_attacked_differs_at_radius_zero() -> None:
    class Fleeting(nn.Module):
        """Correct until its first gradient is taken, wrong ever after."""

        attacked = False

        def forward(self, x: Tensor) -> Tensor:
            self.attacked |= x.requires_grad
            return -natural_net()(x) if self.attacked else natural_net()(x)

    with pytest.raises(EvaluationError, match="accuracy at epsilon 0"):
        probed_indicators(probe(Fleeting().eval(), n=16))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda net: net[0].weight.data.mul_(2), "weights"),
        (lambda net: net[1].running_mean.add_(1), "weights"),
        (lambda net: net.train(), "train/eval mode"),
        (lambda net: net(digits(2).images).sum().backward(), "gradients"),
        (lambda net: torch.rand(1), "random state"),
    ],
)
def test_changes_to_model_or_random_state_are_caught(change: Any, what: str) -> None:
    net = frozen(natural_net(), CPU).requires_grad_(True)
    with torch.random.fork_rng([]), pytest.raises(EvaluationError, match=f"got new {what}"):  # noqa: SIM117
        with untouched(net):
            change(net)


def test_attacks_change_nothing() -> None:
    split, net = digits(8), natural_net()
    with untouched(net):
        fgsm(FGSM(epsilon=0.1), net, split.images, split.labels)
        pgd(PGD(epsilon=0.1), net, split.images, split.labels, noise())


# ReportContents


@pytest.mark.parametrize(
    ("build", "epsilon", "names"),
    [
        (natural_net, 0.05, set()),
        (natural_net, 0.1, set()),
        (natural_net, 0.2, set()),
        (Scaled, 0.1, {"zero-gradient", "scale-dependent", "above-chance"}),
        (ScaledFar, 0.1, {"zero-gradient", "scale-dependent", "above-chance"}),
        (Quantised, 0.1, {"zero-gradient", "quantised", "above-chance"}),
        (Randomised, 0.1, {"randomised"}),
    ],
)
def test_each_planted_fault_is_found(build: Any, epsilon: float, names: set[str]) -> None:
    assert {found.name for found in probed_indicators(probe(build(), epsilon))} == names


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_faults_are_found_in_other_norms(norm: Norm) -> None:
    epsilon = {"l2": 0.5, "l1": 2.0}[norm]
    for build, names in (
        (natural_net, set()),
        (Scaled, {"zero-gradient", "scale-dependent", "above-chance"}),
        (Quantised, {"zero-gradient", "quantised", "above-chance"}),
    ):
        found = probed_indicators(probe(build(), epsilon, norm=norm))
        assert {finding.name for finding in found} == names


def test_findings_are_deterministic_and_leave_the_model() -> None:
    net = natural_net()
    with untouched(net):
        first, second = (probed_indicators(probe(Scaled(net), n=16)) for _ in range(2))
    assert first == second


def test_values_are_the_shares_they_name() -> None:
    found = {finding.name: finding for finding in probed_indicators(probe(Quantised(), n=32))}
    assert found["quantised"].value == 1
    assert "100.0%" in found["quantised"].message
    assert math.isclose(found["above-chance"].value, 0.7, abs_tol=0.2)


def test_too_few_steps_leave_the_loss_moving() -> None:
    assert loss_still_moving(probe(natural_net(), 0.1, n_steps=50)) is None
    moving = loss_still_moving(probe(natural_net(), 0.1, n_steps=12))
    assert moving is not None
    assert moving.value > 0.5


def test_accuracy_that_rises_with_epsilon() -> None:
    split = digits(64)
    truth = torch.nn.functional.one_hot(split.labels, 10).float()

    def recovers(x: Tensor) -> Tensor:
        """Wrong near the image and right far from it, with a slope that leads away."""
        distance = (x - split.images).abs().flatten(1).amax(1)
        is_far = (distance > 0.15).float()[:, None]
        return (2 * is_far - 1) * truth - 1e-3 * truth * x.flatten(1).mean(1, keepdim=True)

    planted = Probe(
        logits_of=recovers, x=split.images, y=split.labels, norm="linf", epsilon=0.1, seed=0
    )
    found = rises_with_epsilon(planted, planted.under(PGD(epsilon=0.1)))
    assert found is not None
    assert found.value == 1
    healthy = probe(natural_net())
    assert rises_with_epsilon(healthy, healthy.under(PGD(epsilon=0.1))) is None


def test_chance_is_the_commonest_label() -> None:
    split = digits(64)
    constant = torch.nn.functional.one_hot(split.labels.mode().values, 10).float()

    def guesses(x: Tensor) -> Tensor:
        return constant + 1e-6 * x.flatten(1)[:, :10]

    guessing = Probe(
        logits_of=guesses, x=split.images, y=split.labels, norm="linf", epsilon=0.1, seed=0
    )
    assert above_chance(guessing) is None
    found = above_chance(probe(Quantised()))
    assert found is not None
    assert found.value > 0.5


def test_order_violations_name_neighbours_beyond_chance() -> None:
    right = torch.ones(100, dtype=torch.bool)
    strong, weak = right.clone(), right.clone()
    weak[:20], strong[:5] = False, False
    verdicts = {"natural": right, "pgd-100": strong, "pgd-20": weak, "cw-20": right}
    (violation,) = order_violations(verdicts)
    assert violation.name == "order-violated"
    assert violation.value == pytest.approx(0.15)
    assert "under pgd-100 is 15.0% above that under pgd-20" in violation.message
    assert (
        order_violations({"pgd-20": bits("0111" * 9), "pgd-100": bits("1111" + "0111" * 8)}) == ()
    )


@pytest.mark.parametrize(
    ("gained", "lost", "excess"), [(4, 0, 0), (5, 0, 0.05), (20, 10, 0), (20, 8, 0.12)]
)
def test_an_excess_must_pass_two_standard_deviations(gained: int, lost: int, excess: float) -> None:
    verdicts = torch.ones(100, dtype=torch.bool)
    reference = verdicts.clone()
    reference[:gained] = False
    verdicts[gained : gained + lost] = False
    assert significant_excess(verdicts, reference) == pytest.approx(excess)


def test_square_counts_only_what_no_gradient_attack_breaks() -> None:
    natural = torch.ones(1000, dtype=torch.bool)
    white, square = natural.clone(), natural.clone()
    white[:100], square[:102] = False, False
    verdicts = {"natural": natural, "pgd-20": white, "square": square}
    assert square_stronger(verdicts) is None
    square[:103] = False
    found = square_stronger(verdicts)
    assert found is not None
    assert found.value == pytest.approx(0.003)
    assert square_stronger({"natural": natural, "square": square}) is None


def test_the_remaining_findings() -> None:
    assert reduced_budget(100, 5000) is None
    assert reduced_budget(10, 5000) == Indicator(
        name="reduced-budget", message="10 of 100 iterations, 5000 of 5000 queries", value=0.1
    )
    first, second = library_warnings(["a", "b", "a"])
    assert (first.message, first.value, second.value) == ("a", 2, 1)
    with pytest.raises(InvalidConfigError, match="must be one of"):
        Indicator(name="unheard-of", message="", value=0)
    assert all(text.endswith(".") for text in INDICATORS.values())
