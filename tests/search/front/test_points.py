"""Operating points: names, intervals and JSON form."""

from __future__ import annotations

import dataclasses

import pytest
from scipy.stats import beta

from generalist_core.config import Ratio
from generalist_core.config.mixing import GLOBAL
from search.front.points import accuracies_text, by_trial, release_curves, trial_id
from tests.helpers.points import point


@pytest.mark.parametrize(("n_correct", "n"), [(0, 20), (7, 20), (20, 20), (481, 500)])
def test_intervals_are_clopper_pearson(n_correct: int, n: int) -> None:
    low, high = point(n_correct / n, 0, n_images=n).interval("natural")
    assert low == pytest.approx(beta.ppf(0.025, n_correct, n - n_correct + 1) if n_correct else 0)
    assert high == pytest.approx(
        beta.ppf(0.975, n_correct + 1, n - n_correct) if n_correct < n else 1
    )


def test_a_point_as_json_has_the_documented_fields() -> None:
    row = point(0.9, 0.3).to_dict()
    assert set(row) == {
        "trial",
        "mixing_ratio",
        "natural",
        "robust",
        "natural_interval",
        "robust_interval",
        "n_images",
        "epoch",
        "config",
    }


@pytest.mark.parametrize(
    ("ratio", "name"),
    [
        (0.0, "0004-0"),
        (1.0, "0004-1"),
        (0.928, "0004-0.928"),
        (0.12345649, "0004-0.12345649"),
        (0.1 + 0.2, "0004-0.30000000000000004"),
        (1e-05, "0004-0.00001"),
        (1.25e-07, "0004-0.000000125"),
        ((0.2, 0.3, 0.5), "0004-0.2-0.3-0.5"),
        ((1e-06, 0.999999, 0.0), "0004-0.000001-0.999999-0"),
    ],
)
def test_a_name_is_the_trial_and_its_ratio_without_an_exponent(ratio: Ratio, name: str) -> None:
    assert dataclasses.replace(point(0.9, 0.3, "0004"), mixing_ratio=ratio).name == name


@pytest.mark.parametrize(
    "ratios",
    [
        (0.5, 0.5000004, 0.5 + 2**-53),
        (1.0, 0.9999999, 1 - 2**-53),
        (0.0, 5e-324, 1e-300, 1e-7, 1.0000001e-7),
        ((0.2, 0.3, 0.5), (0.2, 0.3000001, 0.4999999), (0.2, 0.3, 0.5000000001)),
    ],
)
def test_ratios_that_differ_have_different_names(ratios: tuple[Ratio, ...]) -> None:
    names = {dataclasses.replace(point(0.9, 0.3), mixing_ratio=ratio).name for ratio in ratios}
    assert len(names) == len(ratios)
    assert not any("e" in name for name in names)


def test_the_id_of_a_trial_has_at_least_four_digits() -> None:
    assert [trial_id(number) for number in (0, 42, 12345)] == ["0000", "0042", "12345"]


def test_accuracies_are_printed_in_percent_with_their_intervals() -> None:
    text = accuracies_text(point(0.9, 0.3, n_images=500))
    assert text == "natural 90.0 [87.0, 92.5] %  robust 30.0 [26.0, 34.2] %"


def test_release_curves_are_sorted_by_mixing_ratio() -> None:
    a, b = point(0.9, 0.3, "0000"), point(0.8, 0.4, "0001")
    points = [
        dataclasses.replace(b, mixing_ratio=1.0),
        dataclasses.replace(a, mixing_ratio=0.5),
        dataclasses.replace(b, mixing_ratio=0.25),
    ]
    curves = {curve[0].trial: [p.mixing_ratio for p in curve] for curve in release_curves(points)}
    assert curves == {"0001": [0.25, 1.0], "0000": [0.5]}


def test_the_global_learner_has_a_name_and_no_place_in_a_curve() -> None:
    mixture = point(0.9, 0.3, "0004")
    learner = dataclasses.replace(mixture, mixing_ratio=GLOBAL)
    assert (learner.name, learner.is_global, mixture.is_global) == ("0004-global", True, False)
    assert release_curves([learner, mixture]) == [[mixture]]
    assert by_trial([learner, mixture]) == {"0004": [learner, mixture]}
