"""Experts of several norms and joint training, at equal cost."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.several_norms import JOINT, compared, row, task_of
from generalist_core.config import DataConfig, ModelConfig
from generalist_core.config.presets import short


def test_all_methods_cost_about_the_same_and_are_judged_by_union() -> None:
    """In whole epochs; one with a drawn attack costs half as much as the others."""
    data = DataConfig(n_validation=500, n_train=128)
    base = short(data=data, model=ModelConfig(name="convnet", width=2), epochs=4)
    task = task_of(dataclasses.replace(base, batch_size=64), {"linf": None, "l2": 0.5})
    trained = compared(task)
    experts = trained["experts, mixed"]
    assert [*trained] == ["experts, mixed", *JOINT]
    assert experts.cost == 4 * 128 * (3 + 23 + 23)
    assert [run.epochs for run in trained.values()] == [4, 4, 5, 4, 9, 8]
    costs = {"worst": 45, "steepest": 20 + 20 + 3, "average": 46, "random": 23, "adaptive": 24}
    for name, combine in JOINT.items():
        assert trained[name].cost == trained[name].epochs * 128 * costs[combine]
    for run in trained.values():
        union = run.best.tested["union"]
        assert [*run.best.tested] == ["natural", "linf", "l2", "union"]
        assert union <= min(run.best.tested.values())


def test_a_row_has_means_and_deviations_in_percent() -> None:
    data = DataConfig(n_validation=500, n_train=64)
    base = short(data=data, model=ModelConfig(name="convnet", width=2), epochs=1)
    (name, run), *_ = compared(task_of(base, {"linf": None, "l2": 0.5})).items()
    cells = row(name, [run, run]).split(" | ")
    assert cells[:2] == ["| experts, mixed", "1"]
    assert cells[3] == f"{100 * run.best.tested['natural']:.1f} ± 0.0"
    assert float(cells[2]) == pytest.approx(run.cost, rel=0.01)
