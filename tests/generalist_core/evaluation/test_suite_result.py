"""What a result derives from its verdicts and counts, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from generalist_core.config.suite import AUTOATTACK, SuiteConfig
from generalist_core.evaluation.suite_result import SuiteResult
from tests.helpers.planted import bits


def result(verdicts: dict[str, str], **counts: Any) -> SuiteResult:
    """A result on four images, all of whose attacks cost the same unless `counts` say otherwise."""
    per_attack = {
        name: counts.get(name, dict.fromkeys(verdicts, 4))
        for name in ("forward_images", "gradient_images", "full_costs")
    }
    return SuiteResult(
        config=SuiteConfig(norm="linf", epsilon=0.1, attacks=("fgsm",)),
        n_images=4,
        verdicts={name: bits(text) for name, text in verdicts.items()},
        attacked={name: bits("1111") for name in verdicts},
        seconds=dict.fromkeys(verdicts, 1.0),
        skipped={},
        indicators=(),
        **per_attack,
    )


def test_the_worst_case_withstands_every_attack() -> None:
    measured = result({"natural": "1110", "fgsm": "1101", "square": "0110"})
    assert measured.accuracies == {"natural": 0.75, "fgsm": 0.75, "square": 0.5}
    assert torch.equal(measured.worst_case, bits("0100"))
    assert measured.worst_case_accuracy == 0.25


@pytest.mark.parametrize(("spent", "saved"), [(20, 0.0), (10, 0.5), (0, 1.0)])
def test_what_early_exits_save_is_the_fraction_of_autoattacks_full_cost(
    spent: int, saved: float
) -> None:
    """Each component costs 10 per image; `natural` and PGD are not part of it."""
    verdicts = dict.fromkeys(("natural", "pgd-5", *AUTOATTACK), "1111")
    measured = result(
        verdicts,
        forward_images=dict.fromkeys(verdicts, spent),
        gradient_images=dict.fromkeys(verdicts, spent),
        full_costs=dict.fromkeys(verdicts, 10),
    )
    assert measured.saved_fraction == pytest.approx(saved)


def test_nothing_is_said_of_savings_without_autoattack() -> None:
    assert result({"natural": "1111", "pgd-5": "1110"}).saved_fraction is None
