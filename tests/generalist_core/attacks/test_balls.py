"""Balls: uniform starts, steepest steps and projections against closed forms and a QP solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import kstest
from torch import Tensor

from generalist_core.attacks.balls import BALLS, L1, into_box, normalised, shrinking
from tests.helpers.problems import RADII, lengths, noise, random_images

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
FLOATS = [(torch.float32, 1e-5), (torch.float64, 1e-12)]


def perturbations(dtype: torch.dtype = torch.float64) -> Tensor:
    """Perturbations from small to huge for images (6, 1, 2, 3)."""
    normal = torch.randn(6, 1, 2, 3, generator=torch.Generator().manual_seed(4), dtype=dtype)
    scale = torch.tensor([0.01, 0.1, 0.5, 1, 10, 1000], dtype=dtype)
    return normal * scale.view(-1, 1, 1, 1)


@pytest.mark.parametrize(("dtype", "tolerance"), FLOATS)
@pytest.mark.parametrize("norm", RADII)
def test_starts_are_uniform_in_the_ball(norm: str, dtype: torch.dtype, tolerance: float) -> None:
    n, d, epsilon = 2000, 6, RADII[norm]
    delta = BALLS[norm].start(torch.zeros(n, 1, 2, 3, dtype=dtype), epsilon, noise())
    relative = lengths(delta, norm) / epsilon
    assert delta.dtype == dtype
    assert relative.max() <= 1 + tolerance
    assert kstest(relative.double() ** d, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("norm", "power", "mean"), [("linf", 1, 1 / 2), ("l2", 2, 1 / (6 + 2)), ("l1", 1, 1 / (6 + 1))]
)
def test_starts_prefer_no_pixel_and_no_sign(norm: str, power: int, mean: float) -> None:
    n = 4000
    delta = BALLS[norm].start(torch.zeros(n, 1, 2, 3).double(), 1.0, noise())
    moments = delta.flatten(1).abs() ** power
    standard_errors = moments.std(0) / n**0.5
    assert (((moments.mean(0) - mean) / standard_errors).abs() < 4).all()
    assert ((delta.flatten(1).sign().mean(0) * n**0.5).abs() < 4).all()


@pytest.mark.parametrize("norm", RADII)
def test_the_steepest_step_has_norm_1_and_gains_the_dual_norm(norm: str) -> None:
    gradient, x = perturbations(), torch.full((6, 1, 2, 3), 0.5).double()
    step = BALLS[norm].steepest(gradient, x, torch.zeros_like(x), 0.4)
    torch.testing.assert_close(lengths(step, norm), torch.ones(6).double())
    gain = (step * gradient).flatten(1).sum(1)
    torch.testing.assert_close(gain, lengths(gradient, DUAL[norm]))


@pytest.mark.parametrize("norm", RADII)
def test_without_a_gradient_there_is_no_step(norm: str) -> None:
    x = torch.full((2, 1, 2, 3), 0.5)
    zero = torch.zeros_like(x)
    assert torch.equal(BALLS[norm].steepest(zero, x, zero, 0.4), zero)


def test_the_l1_step_spends_no_more_pixels_than_the_room_makes_necessary() -> None:
    x = torch.tensor([[[[0.9, 0.5, 0.2, 0.5]]]]).double()
    gradient = torch.tensor([[[[4.0, 3.0, -2.0, 1.0]]]]).double()
    for epsilon, n_chosen in ((0.1, 1), (0.5, 2), (0.6, 2), (0.7, 3), (0.9, 4)):
        step = L1.steepest(gradient, x, torch.zeros_like(x), epsilon).flatten()
        assert step.count_nonzero() == n_chosen, epsilon


@pytest.mark.parametrize(
    ("steps", "factors"),
    [
        (1, [1]),
        (2, [3, 1]),
        (3, [3, 2, 1]),
        (5, [3, 3, 2, 1, 1]),
        (10, [3] * 3 + [2] * 3 + [1] * 4),
    ],
)
def test_the_last_steps_are_taken_in_the_ball_itself(steps: int, factors: list[float]) -> None:
    assert shrinking(steps) == factors


@pytest.mark.parametrize("size", [0.01, 0.1, 10.0])
def test_an_l1_step_leaves_the_optimum_of_a_linear_loss_where_it_is(size: float) -> None:
    """The first pixel has met 1, and the second has what is left of the ball."""
    x = torch.tensor([[[[0.9, 0.5, 0.2, 0.5]]]]).double()
    gradient = torch.tensor([[[[4.0, 3.0, -2.0, 1.0]]]]).double()
    optimum = torch.tensor([[[[0.1, 0.3, 0.0, 0.0]]]]).double()
    step = L1.steepest(gradient, x, optimum, 0.4)
    torch.testing.assert_close(step, torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]]).double())
    moved = L1.project(optimum + size * step, x, 0.4)
    torch.testing.assert_close(moved, optimum, rtol=0, atol=1e-7)


def test_an_l1_step_where_all_chosen_pixels_have_met_the_box_is_finite() -> None:
    x = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    gradient = torch.tensor([[[[4.0, 3.0, -2.0, -1.0]]]])
    step = L1.steepest(gradient, x, torch.zeros_like(x), 0.5)
    torch.testing.assert_close(step.abs().sum(), torch.tensor(1.0))
    assert torch.equal(L1.project(step, x, 0.5), torch.zeros_like(x))


@pytest.mark.parametrize(("dtype", "tolerance"), FLOATS)
@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("fraction", [0.0, 0.1, 1.0])
def test_projections_end_in_ball_and_box_and_stay_there(
    norm: str, fraction: float, dtype: torch.dtype, tolerance: float
) -> None:
    x, epsilon = random_images(6, 1, 2, 3, dtype=dtype), fraction * RADII[norm]
    once = BALLS[norm].project(perturbations(dtype), x, epsilon)
    assert lengths(once, norm).max() <= epsilon + tolerance
    assert (x + once).min() >= 0
    assert (x + once).max() <= 1
    torch.testing.assert_close(
        BALLS[norm].project(once, x, epsilon), once, rtol=0, atol=10 * tolerance
    )


@pytest.mark.parametrize("norm", RADII)
def test_projections_leave_what_is_inside(norm: str) -> None:
    x = random_images(6, 1, 2, 3, low=0.3, high=0.7)
    delta = BALLS[norm].start(x, 0.2, noise())
    torch.testing.assert_close(BALLS[norm].project(delta, x, 0.2), delta, rtol=0, atol=1e-15)


def test_l2_projection_far_from_the_box_rescales() -> None:
    x, delta = torch.full((6, 1, 2, 3), 0.5).double(), perturbations()
    epsilon = 0.3
    rescaled = delta * torch.tensor(
        [min(1, epsilon / length) for length in lengths(delta, "l2")]
    ).view(-1, 1, 1, 1)
    torch.testing.assert_close(BALLS["l2"].project(delta, x, epsilon), rescaled, rtol=1e-6, atol=0)


def nearest_by_quadratic_program(delta: np.ndarray, x: np.ndarray, epsilon: float) -> np.ndarray:
    """The nearest point of l1 ball and box; it lies in the orthant of `delta`."""
    size, room = np.abs(delta), np.where(delta > 0, 1 - x, x)
    solution = minimize(
        lambda z: ((z - size) ** 2).sum() / 2,
        x0=np.zeros_like(size),
        jac=lambda z: z - size,
        bounds=[(0, r) for r in room],
        constraints={
            "type": "ineq",
            "fun": lambda z: epsilon - z.sum(),
            "jac": lambda z: -np.ones_like(z),
        },
        options={"ftol": 1e-12},
    )
    assert solution.success
    return np.sign(delta) * solution.x


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1.0, 2.5])
def test_l1_projection_is_the_nearest_point_of_ball_and_box(epsilon: float) -> None:
    x, delta = random_images(4, 1, 2, 3), 3 * perturbations()[:4]
    projected = L1.project(delta, x, epsilon).flatten(1).numpy()
    for nearest, d, image in zip(
        projected, delta.flatten(1).numpy(), x.flatten(1).numpy(), strict=True
    ):
        expected = nearest_by_quadratic_program(d, image, epsilon)
        np.testing.assert_allclose(nearest, expected, atol=1e-6)


def test_the_box_neither_grows_nor_turns_a_pixel() -> None:
    x, delta = random_images(6, 1, 2, 3), perturbations()
    cut = into_box(delta, x)
    assert (cut.abs() <= delta.abs() + 1e-15).all()
    assert (cut * delta >= 0).all()


@pytest.mark.parametrize("p", [1, 2, float("inf")])
def test_normalised_has_norm_1_and_keeps_zero(p: float) -> None:
    direction = perturbations()
    direction[0] = 0
    length = torch.linalg.vector_norm(normalised(direction, p).flatten(1), ord=p, dim=1)
    torch.testing.assert_close(length, torch.tensor([0, 1, 1, 1, 1, 1]).double())
