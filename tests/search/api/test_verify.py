"""A front on test images, beside what it was on validation images."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from generalist_core.config import PGD, NamedAttack, TrainConfig
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset, Split
from generalist_core.evaluation.suite import run_suite
from generalist_core.training.averaging import load_weights
from generalist_core.validation import InvalidConfigError
from search.api.report import write_report
from search.api.sweep import sweep
from search.api.verify import verified_document, verified_notes, verified_table, verify
from search.config import Resources, SweepConfig, VerifyConfig
from search.files import read_json, read_sealed_json
from search.front.front import Front, hypervolume
from search.front.points import FrontPoint
from search.running.mixtures import empty_model, point_state
from search.study.folder import Sweep
from tests.helpers.points import OBJECTIVES, point
from tests.helpers.small_sweep import copy_of, small_sweep
from tests.helpers.tiny import tiny_config

REQUEST = VerifyConfig(attacks=("fgsm", "pgd-5"), n_images=60)


@pytest.fixture(scope="module")
def swept(two_trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return copy_of(two_trials, tmp_path_factory.mktemp("verify") / "sweep")


def without_times(document: Any) -> Any:
    """The document without what differs from run to run."""
    if isinstance(document, dict):
        return {k: without_times(v) for k, v in document.items() if k != "seconds"}
    return [without_times(v) for v in document] if isinstance(document, list) else document


def plain(document: dict[str, Any]) -> Any:
    return without_times(json.loads(json.dumps(document)))


def test_test_accuracies_stand_beside_those_of_validation(swept: Sweep) -> None:
    said = io.StringIO()
    document = verify(swept, REQUEST, console=Console(file=said))
    assert plain(document) == plain(read_sealed_json(swept.folder / "verified.json"))
    for row in document["points"]:
        natural, robust = (100 * row["test"][name] for name in OBJECTIVES)
        assert f"point {row['name']}  natural {natural:.1f} %  robust {robust:.1f} %\n" in (
            said.getvalue()
        )
    points = {point.name: point for point in swept.front.points}
    assert [row["name"] for row in document["points"]] == list(points)
    for row in document["points"]:
        assert row["validation"] == points[row["name"]].accuracies
        assert row["n_test_images"] == 60
        for name in OBJECTIVES:
            low, high = row["test_interval"][name]
            assert low <= row["test"][name] <= high
            assert row["gap"][name] == pytest.approx(row["validation"][name] - row["test"][name])
        assert row["test"]["robust"] <= row["test"]["natural"]
    assert document["hypervolume"]["validation"] == pytest.approx(swept.front.hypervolume)
    Console(quiet=True).print(verified_table(document))


def test_the_notes_say_how_the_table_is_read_and_what_indicators_found() -> None:
    sign = {"name": "square-stronger", "message": "Square alone breaks 0.28% of the images"}
    after = {"natural": 0.9, "pgd-20": 0.6, "square": 0.5}
    suites = {"robust": {"accuracy_after": after, "indicators": [sign]}}
    legend, found = verified_notes({"points": [{"name": "0007-1", "attacks": suites}]})
    assert "Robust ones on test: after pgd-20 -> after all attacks." in legend
    assert found == f"indicator: 0007-1 robust: square-stronger: {sign['message']}"
    suites = {"robust": {"accuracy_after": {"natural": 0.9, "fgsm": 0.6}, "indicators": []}}
    (legend,) = verified_notes({"points": [{"name": "0007-1", "attacks": suites}]})
    assert "after all attacks" not in legend


@pytest.mark.slow
def test_a_second_call_continues_and_ends_the_same(swept: Sweep) -> None:
    first = verify(swept, REQUEST)
    stored = {path: path.read_bytes() for path in (swept.folder / "verify").iterdir()}
    assert stored
    said = Console(file=io.StringIO())
    assert plain(verify(swept, REQUEST, console=said)) == plain(first)
    assert "verified.json is replaced" in said.file.getvalue()  # type: ignore[attr-defined]
    assert {path: path.read_bytes() for path in stored} == stored


@pytest.mark.slow
def test_other_attacks_do_not_meet_the_stored_ones(swept: Sweep) -> None:
    verify(swept, REQUEST)
    weaker = verify(swept, dataclasses.replace(REQUEST, attacks=("fgsm",)))
    assert all(
        set(row["attacks"]["robust"]["accuracy_after"]) == {"natural", "fgsm"}
        for row in weaker["points"]
    )


@pytest.mark.slow
def test_the_union_is_of_the_worst_cases_in_each_norm(tmp_path: Path) -> None:
    """Image by image, as suites of each attack's own norm and radius judge it."""
    attacks = tuple(
        NamedAttack(name=norm, attack=PGD(norm=norm, epsilon=epsilon, steps=2))
        for norm, epsilon in {"linf": 0.1, "l2": 0.6}.items()
    )
    base = tiny_config()
    names = ("natural", "union", "l2", "mean")
    evaluation = dataclasses.replace(base.evaluation, attacks=attacks, objectives=names)
    swept = small_sweep(tmp_path / "sweep", dataclasses.replace(base, evaluation=evaluation))
    assert swept.front.objectives == names
    request = VerifyConfig(attacks=("pgd-5", "autoattack"), n_images=30, n_queries=50)
    document = verify(swept, request)
    images = load_dataset(base.data)
    assert images.test is not None
    for row in document["points"]:
        model = empty_model(base, images, None)
        load_weights(model, point_state(swept.files, row["trial"], row["mixing_ratio"]))
        suites = [run_suite(model, images.test, request.suite(named.attack)) for named in attacks]
        linf, l2 = (suite.worst_case for suite in suites)
        natural = suites[0].verdicts["natural"]
        expected = [natural, linf & l2, l2, torch.cat([linf, l2])]
        values = [v.double().mean().item() for v in expected]
        assert row["test"] == pytest.approx(dict(zip(names, values, strict=True)))
        assert [suite["suite"]["norm"] for suite in row["attacks"].values()] == ["linf", "l2"]
        assert row["test"]["union"] <= min(row["test"]["l2"], row["test"]["mean"])
    write_report(swept)
    assert "union" in (swept.folder / "report.html").read_text()
    assert swept.pick("max union").point.accuracies["union"] == max(
        point.accuracies["union"] for point in swept.front.points
    )
    Console(quiet=True).print(verified_table(document))


def suite_of(natural: float, robust: float) -> dict[str, Any]:
    test = {"natural": natural, "robust": robust}
    return {"test": test, "attacks": {"robust": {"n_images": 100}}}


def test_points_that_lose_their_place_are_named() -> None:
    points: list[FrontPoint] = [
        point(0.7, 0.6, "0000"),
        point(0.8, 0.5, "0001"),
        point(0.9, 0.3, "0002"),
    ]
    front = Front.of(points, OBJECTIVES)
    measured = [(0.70, 0.45), (0.72, 0.47), (0.88, 0.2)]
    results = {p.name: suite_of(*values) for p, values in zip(front.points, measured, strict=True)}
    document = verified_document(front, REQUEST, results)
    assert document["lost_their_place"] == [front.points[0].name]
    expected = hypervolume(torch.tensor(measured, dtype=torch.float64).numpy())
    assert document["hypervolume"]["test"] == pytest.approx(expected)


def test_without_test_images_there_is_nothing_to_verify(swept: Sweep) -> None:
    data = dataclasses.replace(load_dataset(swept.config.base.data), test=None)
    with pytest.raises(InvalidConfigError, match="test images"):
        verify(swept, REQUEST, data=data)


def test_unknown_attacks_are_refused_by_name() -> None:
    with pytest.raises(InvalidConfigError, match="'pgd'"):
        VerifyConfig(attacks=("pgd",))


@pytest.mark.slow
def test_rays_workers_find_the_same(tmp_path: Path, local_ray: None, swept: Sweep) -> None:
    here = verify(swept, REQUEST)
    for path in (swept.folder / "verify").iterdir():
        path.unlink()
    there = verify(swept, REQUEST, resources=Resources(), console=Console(quiet=True))
    assert plain(there) == plain(here)


@pytest.mark.slow
def test_test_labels_have_no_say_in_a_sweep(tmp_path: Path) -> None:
    config: TrainConfig = tiny_config()
    data = load_dataset(config.data)
    assert data.test is not None
    garbage = Split(images=1 - data.test.images, labels=torch.zeros_like(data.test.labels))
    request = SweepConfig(base=config, space="mixing", trials=3, resources=Resources(local=True))
    points = []
    for name, test in (("a", data.test), ("b", garbage), ("c", None)):
        own: Dataset = dataclasses.replace(data, test=test)
        found = sweep(request, tmp_path / name, data=own, console=Console(quiet=True))
        points.append(found.results.points())
    assert points[0]
    assert points[0] == points[1] == points[2]


@pytest.mark.slow
def test_repeats_train_the_front_again_with_other_seeds(tmp_path: Path, local_ray: None) -> None:
    request = SweepConfig(base=tiny_config(), space="smoke", trials=2, repeats=2)
    found = sweep(request, tmp_path / "out", console=Console(quiet=True))
    document = read_json(found.folder / "front.json")
    assert document["points"]
    seeds = {read_json(path)["seed"] for path in (found.folder / "repeats").glob("*/config.json")}
    assert len(seeds) == 2
    assert request.base.seed not in seeds
    for row in document["points"]:
        for name in OBJECTIVES:
            values = row["repeats"][name]["values"]
            assert len(values) == 2
            assert row["repeats"][name]["mean"] == pytest.approx(sum(values) / 2)
            spread = abs(values[0] - values[1]) / 2**0.5
            assert row["repeats"][name]["std"] == pytest.approx(spread)
