"""The attacks that judge, and what a row says of them."""

from __future__ import annotations

import re

from benchmarks.judging import judged, judges, robust_in


def test_a_row_has_the_accuracy_and_cost_by_each_attack_and_autoattack_is_lowest() -> None:
    trainer = robust_in("linf", 1)
    *cheap, autoattack = judged(trainer, "linf", 20)
    assert len(cheap) == len(judges("linf", 0.2)) == 4
    found = [re.fullmatch(r"(\d+\.\d) \((\d+)\)", cell) for cell in cheap]
    accuracies = [float(match[1]) for match in found if match]
    costs = [int(match[2]) for match in found if match]
    assert float(autoattack) <= min(accuracies)
    assert max(accuracies) > 0
    assert costs[:2] == [22, 42]
    assert costs[0] < costs[3] < 1 + 1 + 1 + 3 * 41
