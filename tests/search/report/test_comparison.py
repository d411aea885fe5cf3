"""Sweeps side by side: by second computations from their points and costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.config import Floor, SweepConfig
from search.files import write_sealed_json
from search.front.front import hypervolume
from search.front.points import values_of
from search.report.comparison import compare, comparison_table, n_on_joint_front
from search.study.folder import Sweep, custom_parts, write_request
from spaces import Trial
from spaces.protocol import tune_float
from tests.helpers.reports import PLANTED, TWO, ledger_of


def swept(folder: Path, n: int, images: str = "same", **changes: object) -> Sweep:
    """`n` completed trials in a folder with a request."""
    config = dataclasses.replace(SweepConfig(base=short()), **changes)  # type: ignore[arg-type]
    folder.mkdir()
    write_request(folder, config, "study", custom_parts(None, None), {"images": images})
    return Sweep(folder=folder, config=config, ledger=ledger_of(n))


def test_sweeps_are_compared_at_the_cost_and_the_level_that_all_reach(tmp_path: Path) -> None:
    few, many = swept(tmp_path / "few", 4), swept(tmp_path / "many", 12)
    made = compare({"few": few, "many": many})
    assert [one.name for one in made.sweeps] == ["few", "many"]
    assert made.cost == few.results.cost()["forward_images"]
    assert made.level == few.hypervolume < many.hypervolume
    left, right = made.sweeps
    # both have begun alike, with the same trials
    assert right.hypervolume_at_cost == left.hypervolume_at_cost == few.hypervolume
    first = {point.trial for point in few.front.points}
    points = [point for point in many.results.points() if point.trial <= max(first)]
    assert hypervolume(values_of(points, TWO)) == pytest.approx(made.level)
    n_until = int(max(first)) + 1
    assert right.cost_to_level == pytest.approx(made.cost * n_until / 4)
    assert [step.hypervolume for step in right.history] == [
        step.hypervolume for step in many.results.history()
    ]
    assert made.cautions == ()


def worse(trial: Trial, base: TrainConfig) -> TrainConfig:
    """A space whose best trials have little natural accuracy."""
    return tune_float(trial, base, PLANTED, 0.9, 0.92)


def test_points_of_the_joint_front_are_those_that_no_other_sweep_dominates(tmp_path: Path) -> None:
    few, many = swept(tmp_path / "few", 4), swept(tmp_path / "many", 12)
    few = dataclasses.replace(few, ledger=ledger_of(4, of=worse))
    expected = sum(
        not any(
            all(q.accuracies[n] >= p.accuracies[n] for n in TWO) and q.accuracies != p.accuracies
            for q in many.results.points()
        )
        for p in few.front.points
    )
    assert n_on_joint_front(few, [many]) == expected < len(few.front.points)
    assert n_on_joint_front(many, [few]) == len(many.front.points)
    assert n_on_joint_front(many, [many]) == len(many.front.points)
    assert n_on_joint_front(swept(tmp_path / "none", 0), [few]) == 0
    assert n_on_joint_front(few, [swept(tmp_path / "empty", 0)]) == len(few.front.points)


def test_hypervolumes_are_above_the_lowest_reference_point(tmp_path: Path) -> None:
    floor = (Floor(objective="natural", accuracy=0.3),)
    other = Floor(objective="natural", accuracy=0.1)
    a = swept(tmp_path / "a", 4, at_least=floor)
    ledger = ledger_of(4)
    ledger.results.goals = dataclasses.replace(ledger.results.goals, floors=floor)
    a = dataclasses.replace(a, ledger=ledger)
    b = swept(tmp_path / "b", 4, at_least=(other,))
    made = compare({"a": a, "b": b})
    assert made.reference == (0.0, 0.0)  # b's ledger has none
    assert made.sweeps[0].front.hypervolume == made.sweeps[1].front.hypervolume
    assert "other regions" in made.cautions[0]


def test_what_does_not_compare_is_said(tmp_path: Path) -> None:
    path = "evaluation.attacks.robust.attack.epsilon"
    harder = replace_at(short(), path, 0.01)
    made = compare(
        {
            "a": swept(tmp_path / "a", 1),
            "b": swept(tmp_path / "b", 1, images="others", base=harder),
        }
    )
    assert any("other images" in caution for caution in made.cautions)
    assert any("other attacks" in caution for caution in made.cautions)
    rounder = replace_at(short(), "evaluation.precision", "bfloat16")
    made = compare(
        {"a": swept(tmp_path / "e", 1), "b": swept(tmp_path / "f", 1, base=rounder)},
    )
    assert made.cautions == (
        "The sweeps are judged by attacks in other precisions, so small differences of their "
        "robust accuracies say nothing.",
    )
    double = replace_at(short(), "precision", "float64")
    doubles = [replace_at(double, "evaluation.precision", p) for p in ("float32", "bfloat16")]
    parts = {str(n): swept(tmp_path / f"d{n}", 1, base=base) for n, base in enumerate(doubles)}
    assert compare(parts).cautions == ()
    fewer = swept(tmp_path / "g", 1)
    fewer.results._points = [dataclasses.replace(p, n_images=99) for p in fewer.results.points()]
    made = compare({"a": swept(tmp_path / "h", 1), "b": fewer, "none": swept(tmp_path / "i", 0)})
    assert made.cautions == (
        "The sweeps are judged on other numbers of images: accuracies do not compare.",
    )
    unfinished = swept(tmp_path / "c", 2)
    unfinished.ledger.ask(lambda _, base: base, short())
    made = compare({"c": unfinished, "d": swept(tmp_path / "d", 1)})
    assert made.cautions == ("c has unfinished trials, which are not counted.",)


def test_sweeps_of_other_objectives_and_a_single_one_are_refused(tmp_path: Path) -> None:
    two, three = swept(tmp_path / "two", 1), swept(tmp_path / "three", 1)
    three = dataclasses.replace(three, ledger=ledger_of(1, (*TWO, "l2")))
    with pytest.raises(InvalidConfigError, match="same objectives, but two has natural, robust; "):
        compare({"two": two, "three": three})
    with pytest.raises(InvalidConfigError, match="two sweeps or more"):
        compare({"two": two})


def test_the_table_and_the_json_have_a_row_per_sweep(tmp_path: Path) -> None:
    sweeps = {name: swept(tmp_path / name, n) for name, n in (("none", 0), ("some", 3))}
    made = compare(sweeps)
    assert comparison_table(made).row_count == 2
    none, some = made.to_dict()["sweeps"]
    assert (none["hypervolume"], none["growth"], none["front"]) == (0.0, [], [])
    assert some["cost_to_level"] == 0.0  # at the level of none, before any trial
    assert len(some["growth"]) == 3
    assert some["points_on_front"] == len(some["front"])


def test_attainment_is_that_of_the_repeats(tmp_path: Path) -> None:
    sweep = swept(tmp_path / "a", 1)
    rows = [
        {
            "repeat": n,
            "trial": "0000",
            "mixing_ratio": 0.5,
            "accuracies": dict.fromkeys(TWO, 0.1 * n),
        }
        for n in (1, 2, 3)
    ]
    write_sealed_json(sweep.files.repeats, {"repeats": rows})
    (one, *_) = compare({"a": sweep, "c": swept(tmp_path / "c", 2)}).sweeps
    assert one.hypervolume_at_cost == one.front.hypervolume > 0  # at its own cost
    with_repeats, without = compare({"a": sweep, "b": swept(tmp_path / "b", 1)}).sweeps
    assert without.attainment is None
    assert with_repeats.attainment is not None
    assert with_repeats.attainment.surfaces[1].values.tolist() == [[0.2, 0.2]]
