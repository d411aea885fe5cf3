"""The figures in the space of the objectives."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from generalist_core.config.presets import short
from generalist_core.training.evaluator import OperatingPoint
from search.api.verify import verified_document
from search.config import VerifyConfig
from search.files import write_sealed_json
from search.front.front import Front
from search.front.pick import pick
from search.report.contents import gather
from search.report.page import report_html
from tests.helpers.reports import COST, THREE, TWO, Page, drawn, ledger_of, page_of, space


def test_a_third_objective_is_the_colour_of_the_front(tmp_path: Path) -> None:
    ledger = ledger_of(3, THREE)
    page = page_of(tmp_path, ledger)
    (front,) = [t for t in page.figures["front"]["data"] if t["name"] == "front (validation)"]
    l2 = [100 * point.accuracies["l2"] for point in ledger.results.front().points]
    assert front["marker"]["color"] == pytest.approx(l2)
    assert "The colour is the l2 accuracy" in page.text


def test_verified_points_stand_beside_those_of_validation(tmp_path: Path) -> None:
    ledger = ledger_of(4)
    front = ledger.results.front()
    signs: list[list[dict[str, str]]] = [[] for _ in front.points]
    signs[-1].append({"name": "square-stronger", "message": "Square found <more> than PGD."})
    results = {
        p.name: {
            "test": {"natural": 0.3, "robust": 0.1 + 0.01 * i},
            "attacks": {"robust": {"n_images": 50, "indicators": signs[i]}},
        }
        for i, p in enumerate(front.points)
    }
    document = verified_document(front, VerifyConfig(attacks=("fgsm",)), results)
    write_sealed_json(tmp_path / "verified.json", document)
    page = page_of(tmp_path, ledger)
    expected = [(30.0, round(10.0 + i, 4)) for i in range(len(front.points))]
    assert drawn(page.figures["front"], "the same, verified (test)") == expected
    assert "natural, test" in page.text
    assert page.text.count("square-stronger") == 2
    assert ": Square found <more> than PGD." in page.text
    assert "on 50 test images" in json.dumps(page.figures["front"])


def front_trace(page: Page, name: str) -> dict[str, Any]:
    (trace,) = [t for t in page.figures["front"]["data"] if t.get("name") == name]
    return trace


def test_the_knee_and_the_chosen_point_have_rings(tmp_path: Path) -> None:
    results = ledger_of(6).results
    knee, other = pick(results.front(), "knee"), pick(results.front(), "max natural")
    page = Page(report_html(gather(tmp_path, results, spec="max natural")))
    for label, picked in (("knee", knee), ("chosen", other)):
        ring = front_trace(page, label)
        place = [round(100 * picked.point.accuracies[name], 4) for name in TWO]
        assert [*ring["x"], *ring["y"]] == place
    assert other.reason in page.text
    assert f"--pick {other.point.name} --to" in page.text
    names = [t.get("name") for t in page_of(tmp_path, ledger_of(6)).figures["front"]["data"]]
    assert "knee" in names
    assert "chosen" not in names


@pytest.mark.parametrize("objectives", [TWO, THREE])
def test_global_learners_have_stars_and_the_table_says_so(
    tmp_path: Path, objectives: tuple[str, ...]
) -> None:
    ledger = ledger_of(3, objectives, with_global=True)
    learners = [point for point in ledger.results.points() if point.is_global]
    page = page_of(tmp_path, ledger)
    assert {point.name for point in learners} & {p.name for p in ledger.results.front().points}
    places = [[round(100 * p.accuracies[name], 4) for name in TWO] for p in learners]
    assert drawn(page.figures["front"], "global learner") == [*map(tuple, places)]
    assert ">global</span>" in report_html(gather(tmp_path, ledger.results))
    curves = drawn(page.figures["front"], "release curves")
    assert len(curves) == sum(not p.is_global for p in ledger.results.points()) + 3
    plain = page_of(tmp_path, ledger_of(3, objectives)).figures["front"]["data"]
    assert "global learner" not in [trace.get("name") for trace in plain]


def test_the_intervals_of_many_points_are_a_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It contains every interval of the front, and no bars are drawn."""
    ledger = ledger_of(6)
    points = ledger.results.front().points
    assert "array" in front_trace(page_of(tmp_path, ledger), "front (validation)")["error_x"]
    monkeypatch.setattr("search.report.contents.N_BARS", len(points) - 1)
    page = page_of(tmp_path, ledger)
    assert "error_x" not in front_trace(page, "front (validation)")
    band = front_trace(page, "95 % intervals")
    outline = set(zip(band["x"], band["y"], strict=True))
    ends = [[point.interval(name) for name in TWO] for point in points]
    for (left, right), (bottom, top) in ends:
        assert (round(100 * left, 4), round(100 * bottom, 4)) in outline
        assert (round(100 * right, 4), round(100 * top, 4)) in outline
    assert "The band lies between" in page.text


def test_a_surface_of_many_points_has_neither_bars_nor_a_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.report.contents.N_BARS", 0)
    page = page_of(tmp_path, ledger_of(4, THREE))
    assert "95 % intervals" not in [t.get("name") for t in page.figures["front"]["data"]]
    assert "The band lies" not in page.text


def test_points_far_below_the_front_are_outside_the_first_view(tmp_path: Path) -> None:
    ledger = ledger_of(0)
    proposal = ledger.ask(space, short())
    values = {0.0: (0.8, 0.5), proposal.mixing_ratio: (0.82, 0.48), 1.0: (0.01, 0.02)}
    points = [
        OperatingPoint(
            mixing_ratio=ratio,
            accuracies=dict(zip(TWO, accuracies, strict=True)),
            n_images=500,
            epoch=16,
        )
        for ratio, accuracies in values.items()
    ]
    ledger.tell_released(proposal.trial, points, COST)
    page = page_of(tmp_path, ledger)
    assert (1.0, 2.0) in drawn(page.figures["front"], "other points")
    for axis, name in zip(("xaxis", "yaxis"), TWO, strict=True):
        low, high = page.figures["front"]["layout"][axis]["range"]
        assert low > 2
        for on_front in ledger.results.front().points:
            bottom, top = on_front.interval(name)
            assert low < 100 * bottom < 100 * top < high


def test_each_pair_of_three_objectives_has_its_front_and_hypervolume(tmp_path: Path) -> None:
    ledger = ledger_of(5, THREE)
    page, points = page_of(tmp_path, ledger), ledger.results.points()
    for number, pair in enumerate(itertools.combinations(THREE, 2)):
        front = Front.of(points, pair)
        text = f"{pair[0]} and {pair[1]}: hypervolume {front.hypervolume:.4f} "
        assert text in page.text
        expected = [tuple(round(100 * p.accuracies[n], 4) for n in pair) for p in front.points]
        assert drawn(page.figures[f"pair-{number}"], "front in the pair") == expected
    assert "pair-3" not in page.figures
    assert "pair-0" not in page_of(tmp_path, ledger_of(5)).figures


def test_repeats_are_drawn_by_how_many_attain(tmp_path: Path) -> None:
    ledger = ledger_of(3)
    rows = [
        {
            "trial": "0000",
            "repeat": repeat,
            "mixing_ratio": 0.5,
            "accuracies": {"natural": x, "robust": y},
        }
        for repeat, x, y in ((1, 0.6, 0.4), (2, 0.7, 0.3))
    ]
    write_sealed_json(tmp_path / "repeats.json", {"repeats": rows})
    figure = page_of(tmp_path, ledger).figures["attainment"]
    assert drawn(figure, "attained by 1 of 2 repeats") == [(60.0, 40.0), (70.0, 30.0)]
    assert drawn(figure, "attained by all 2 repeats") == [(60.0, 30.0)]
