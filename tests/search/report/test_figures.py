"""The figures in the space of the objectives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.api.verify import verified_document
from search.config import VerifyConfig
from search.files import write_sealed_json
from tests.helpers.reports import THREE, drawn, ledger_of, page_of


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
    measured = {"natural": 0.3, "n_images": 50}
    suites = {
        p.name: {"robust": {**measured, "worst_case": 0.1 + 0.01 * i, "indicators": signs[i]}}
        for i, p in enumerate(front.points)
    }
    document = verified_document(front, VerifyConfig(attacks=("fgsm",)), suites)
    write_sealed_json(tmp_path / "verified.json", document)
    page = page_of(tmp_path, ledger)
    expected = [(30.0, round(10.0 + i, 4)) for i in range(len(front.points))]
    assert drawn(page.figures["front"], "the same, verified (test)") == expected
    assert "natural, test" in page.text
    assert page.text.count("square-stronger") == 2
    assert ": Square found <more> than PGD." in page.text
    assert "on 50 test images" in json.dumps(page.figures["front"])


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
