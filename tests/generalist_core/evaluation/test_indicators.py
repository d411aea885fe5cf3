"""Planted faults: each is found under the name of its indicator and no other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generalist_core.config import PGD, Norm
from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.indicators import (
    INDICATORS,
    Indicator,
    Probe,
    above_chance,
    bounded,
    fraction_of,
    library_warnings,
    loss_still_moving,
    order_violations,
    probed_indicators,
    reduced_budget,
    rises_with_epsilon,
    significant_excess,
    square_stronger,
)
from generalist_core.evaluation.laws import untouched
from generalist_core.validation import EvaluationError, InvalidConfigError
from tests.helpers.planted import (
    Linear,
    NoisyByContent,
    Quantised,
    Scaled,
    ScaledFar,
    Sigmoid,
    bits,
    digits,
    interior_images,
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
    ("build", "epsilon", "names"),
    [
        (natural_net, 0.05, set()),
        (natural_net, 0.1, set()),
        (natural_net, 0.2, set()),
        (Scaled, 0.1, {"zero-gradient", "scale-dependent", "above-chance"}),
        (ScaledFar, 0.1, {"zero-gradient", "scale-dependent", "above-chance"}),
        (Quantised, 0.1, {"zero-gradient", "quantised", "above-chance"}),
        (NoisyByContent, 0.1, {"discontinuous"}),
        (Sigmoid, 0.1, {"masked-gradients", "bounded"}),
    ],
)
def test_each_planted_fault_is_found(build: Any, epsilon: float, names: set[str]) -> None:
    assert {indicator.name for indicator in probed_indicators(probe(build(), epsilon))} == names


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_faults_are_found_in_other_norms(norm: Norm) -> None:
    epsilon = {"l2": 0.5, "l1": 2.0}[norm]
    for build, names in (
        (natural_net, set()),
        (Scaled, {"zero-gradient", "scale-dependent", "above-chance"}),
        (Quantised, {"zero-gradient", "quantised", "above-chance"}),
    ):
        indicators = probed_indicators(probe(build(), epsilon, norm=norm))
        assert {indicator.name for indicator in indicators} == names


def test_indicators_are_deterministic_and_leave_the_model() -> None:
    net = natural_net()
    with untouched(net):
        first, second = (probed_indicators(probe(Scaled(net), n=16)) for _ in range(2))
    assert first == second


def test_values_are_the_fractions_they_name() -> None:
    indicators = {each.name: each for each in probed_indicators(probe(Quantised(), n=32))}
    assert indicators["quantised"].value == 1
    assert "100.0%" in indicators["quantised"].message
    assert math.isclose(indicators["above-chance"].value, 0.7, abs_tol=0.2)


def test_too_few_steps_leave_the_loss_moving() -> None:
    assert loss_still_moving(probe(natural_net(), 0.1, n_steps=50)) is None
    moving = loss_still_moving(probe(natural_net(), 0.1, n_steps=12))
    assert moving is not None
    assert moving.value > 0.5


@pytest.mark.parametrize(
    ("norm", "epsilon", "n_steps"),
    [
        *((norm, epsilon, n) for norm, epsilon in (("linf", 0.1), ("l2", 0.5)) for n in (1, 5, 12)),
        *(("l1", 2.0, n) for n in (1, 5)),
    ],
)
def test_a_pgd_cut_short_still_moves_in_all_norms(norm: Norm, epsilon: float, n_steps: int) -> None:
    moving = loss_still_moving(probe(natural_net(), epsilon, norm=norm, n_steps=n_steps, n=32))
    assert moving is not None
    assert moving.name == "loss-still-moving"


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.08), ("l2", 0.4), ("l1", 1.5)])
@pytest.mark.parametrize("factor", [0.5, 1, 1.5])
def test_a_confident_sound_model_has_arrived_in_all_norms(
    norm: Norm, epsilon: float, factor: float
) -> None:
    """The cross-entropy of the survivors rises late, because it is exponential in the margin."""
    assert loss_still_moving(probe(natural_net(), factor * epsilon, norm=norm, n=32)) is None


def test_linear_models_in_all_norms_are_sound() -> None:
    x = interior_images()
    model = Linear(4)
    y = model(x).argmax(1)
    for norm, epsilon in (("linf", 0.02), ("l2", 0.15), ("l1", 0.8)):
        sound = Probe(logits_of=model, x=x, y=y, norm=norm, epsilon=epsilon, seed=0)  # type: ignore[arg-type]
        assert probed_indicators(sound) == ()


@pytest.mark.parametrize(
    ("head", "is_bounded"),
    [
        (torch.sigmoid, True),
        (torch.tanh, True),
        (lambda z: z, False),
        (torch.relu, False),
        (lambda z: 0.01 * z, False),
        (lambda z: z / 9, False),
    ],
)
def test_outputs_that_fill_an_interval_are_bounded(head: Any, is_bounded: bool) -> None:
    net = natural_net()
    headed = dataclasses.replace(probe(net), logits_of=lambda x: head(net(x)))
    assert (bounded(headed) is not None) == is_bounded


def test_warnings_that_differ_in_numbers_are_one() -> None:
    texts = [f"there are {n} points with zero gradient at 0.5!" for n in (9, 13, 9, 120)]
    first, second = library_warnings([*texts, 'please use version="rand"'])
    assert first.message == "there are 9 to 120 points with zero gradient at 0.5!"
    assert (first.value, second.value) == (4, 1)


def test_accuracy_that_rises_with_epsilon() -> None:
    split = digits(64)
    truth = torch.nn.functional.one_hot(split.labels, 10).float()

    def recovers(x: Tensor) -> Tensor:
        """Wrong near the image and right far from it, with a gradient that points away."""
        distance = (x - split.images).abs().flatten(1).amax(1)
        is_far = (distance > 0.15).float()[:, None]
        return (2 * is_far - 1) * truth - 1e-3 * truth * x.flatten(1).mean(1, keepdim=True)

    planted = Probe(
        logits_of=recovers, x=split.images, y=split.labels, norm="linf", epsilon=0.1, seed=0
    )
    indicator = rises_with_epsilon(planted, planted.under(PGD(epsilon=0.1)))
    assert indicator is not None
    assert indicator.value == 1
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
    indicator = above_chance(probe(Quantised()))
    assert indicator is not None
    assert indicator.value > 0.5


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
    indicator = square_stronger(verdicts)
    assert indicator is not None
    assert indicator.value == pytest.approx(0.003)
    assert square_stronger({"natural": natural, "square": square}) is None


def test_the_remaining_indicators() -> None:
    assert reduced_budget(100, 5000) is None
    assert reduced_budget(10, 5000) == Indicator(
        name="reduced-budget", message="10 of 100 iterations, 5000 of 5000 queries", value=0.1
    )
    first, second = library_warnings(["a", "b", "a"])
    assert (first.message, first.value, second.value) == ("a", 2, 1)
    with pytest.raises(InvalidConfigError, match="must be one of"):
        Indicator(name="unheard-of", message="", value=0)
    assert all(text.endswith(".") for text in INDICATORS.values())


def test_fractions_are_exact_where_float32_means_are_not() -> None:
    assert fraction_of(bits("100")) == 1 / 3 != bits("100").float().mean().item()
