"""The page of a comparison: what it draws, and that it is safe and complete."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from generalist_core.config.presets import short
from search.config import SweepConfig
from search.front.points import values_of
from search.front.repeats import Attainment, Surface
from search.report.comparison import Comparison, compare
from search.report.comparison_page import attainments_figure, comparison_html
from search.study.folder import Sweep, custom_parts, write_request
from tests.helpers.reports import TWO, Page, drawn, ledger_of


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    sweeps = {}
    for name, n in {"<b>few</b>": 2, "many": 6}.items():
        folder = tmp_path / str(n)
        folder.mkdir()
        config = SweepConfig(base=short())
        write_request(folder, config, "study", custom_parts(None, None))
        sweeps[name] = Sweep(folder=folder, config=config, ledger=ledger_of(n))
    return compare(sweeps)


def test_every_front_and_its_growth_is_drawn(comparison: Comparison) -> None:
    page = Page(comparison_html(comparison))
    assert page.figures.keys() == {"fronts", "growth"}
    many = comparison.sweeps[1]
    expected = 100 * values_of(many.front.points, TWO)
    assert np.array(drawn(page.figures["fronts"], "many")) == pytest.approx(expected, abs=1e-3)
    growth = drawn(page.figures["growth"], "many")
    assert growth == [(0, 0), *((g.forward_images, g.hypervolume) for g in many.history)]
    assert "2 sweeps compared" in page.text


def test_names_are_text(comparison: Comparison) -> None:
    text = comparison_html(comparison)
    assert "<b>few" not in text
    assert "&lt;b&gt;few" in text


def test_half_of_the_repeats_and_all_are_drawn(comparison: Comparison) -> None:
    surfaces = tuple(
        Surface(n_repeats=n, values=np.array([[0.9 - 0.1 * n, 0.5]])) for n in (1, 2, 3)
    )
    attained = Attainment(n_repeats=3, n_left_out=0, surfaces=surfaces)
    few, many = comparison.sweeps
    made = dataclasses.replace(
        comparison, sweeps=(few, dataclasses.replace(many, attainment=attained))
    )
    half, all_of_them = attainments_figure(made).data
    assert (half.name, list(half.x), half.line.dash) == ("many: 2 of 3 repeats", [70.0], "solid")
    assert (all_of_them.name, list(all_of_them.x)) == ("many: 3 of 3 repeats", [60.0])
    assert "attainment" in Page(comparison_html(made)).figures
