"""The report is one page that loads nothing, whatever the result of a sweep."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from generalist_core.config.presets import short
from search.front.repeats import attainment
from search.report.contents import ReportContents, gather
from search.report.importance import N_REQUIRED
from search.report.page import report_html
from search.report.published import read_reference
from search.study.failures import Failure
from search.study.records import State
from tests.helpers.browser import browsing
from tests.helpers.ledgers import new_ledger, story
from tests.helpers.reports import THREE, TWO, Page, axes, csv_file, drawn, ledger_of, page_of, space

CHROMIUM = shutil.which("chromium")


@pytest.mark.parametrize("objectives", [TWO, THREE])
@pytest.mark.parametrize("n_trials", [0, 1, 2, 25, pytest.param(260, marks=pytest.mark.slow)])
def test_the_page_loads_nothing_and_shows_every_point(
    tmp_path: Path, n_trials: int, objectives: tuple[str, ...]
) -> None:
    if n_trials == 260 and objectives == THREE:
        pytest.skip("as large with two")
    ledger = ledger_of(n_trials, objectives)
    page = page_of(tmp_path, ledger)
    assert page.loads == []
    assert len(page.anchors) == 11
    assert page.anchors <= page.ids
    if n_trials == 0:
        assert page.figures == {}
        return
    points = ledger.results.points()
    assert len(points) == 1040 or n_trials < 260
    values = drawn(page.figures["front"], "other points", "front (validation)")
    expected = [tuple(round(100 * p.accuracies[name], 4) for name in TWO) for p in points]
    assert sorted(values) == sorted(expected)
    labels = {axis["label"] for axis in axes(page)}
    assert {"mixing ratio", *(f"{name} (%)" for name in objectives)} <= labels
    assert all(len(axis["values"]) == len(points) for axis in axes(page))
    assert page.figures["growth"]["data"][0]["y"][-1] == ledger.results.front().hypervolume
    assert page.figures["growth"]["data"][0]["x"][-1] == 1e6 * n_trials
    assert ("importance" in page.figures) == (n_trials >= N_REQUIRED)


def test_failed_and_unfinished_trials_are_told(tmp_path: Path) -> None:
    ledger = ledger_of(0)
    for kind, reason in (("diverged", "loss is <b>nan</b>"), ("hang", "for 3600 s")):
        failure = Failure(kind=kind, reason=reason)  # type: ignore[arg-type]
        ledger.tell_failed(ledger.ask(space, short()).trial, failure)
    ledger.ask(space, short())
    page = page_of(tmp_path, ledger)
    assert "1 diverged, 1 hang" in page.text
    assert "loss is <b>nan</b>" in page.text
    assert "1 unfinished" in page.text
    assert "b" not in page.tags
    assert set(page.figures) == {"growth"}


def test_what_users_name_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x>"
    ledger = ledger_of(25)
    contents = gather(tmp_path, ledger.results)
    renamed = {trial: {evil: 0.5 + int(trial), **own} for trial, own in contents.params.items()}
    important = [
        dataclasses.replace(one, target=evil, fractions={evil: 1.0}) for one in contents.importances
    ]
    page = page_of(
        tmp_path,
        ledger,
        name=evil,
        params=renamed,
        importances=important,
        request={"space": evil},
        environment={"command": evil},
    )
    assert page.loads == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 3 + len(page.figures)
    assert evil in page.text
    front = next(t for t in page.figures["front"]["data"] if t["name"] == "front (validation)")
    assert "&lt;img src=x&gt;" in front["text"][0]
    assert "<img" not in json.dumps(page.figures)


def in_browser(page: Path, *options: str) -> str:
    """The document that a headless Chromium has after the page's scripts ran."""
    assert CHROMIUM is not None
    base = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"]
    return subprocess.run(
        [*base, "--virtual-time-budget=20000", "--dump-dom", *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    ).stdout


def whole(folder: Path) -> ReportContents:
    """A sweep with everything that a report can show."""
    ledger = ledger_of(30)
    rows = [{"repeat": 1, "accuracies": {"natural": 0.6, "robust": 0.4}}]
    reference = read_reference(csv_file(folder, "name,natural,robust\na,0.9,0.5\n"), TWO)
    contents = gather(folder, ledger.results, reference)
    return dataclasses.replace(contents, attainment=attainment(rows, TWO))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("make", [whole, lambda folder: gather(folder, ledger_of(0).results)])
def test_a_browser_draws_every_figure_without_an_error(
    tmp_path: Path, make: Callable[[Path], ReportContents]
) -> None:
    text = report_html(make(tmp_path))
    figures = Page(text).figures
    (tmp_path / "report.html").write_text(text)
    seen = in_browser(tmp_path / "report.html")
    assert 'data-drawn="yes"' in seen
    assert '<p id="problem" hidden=""></p>' in seen
    for name in figures:
        _, after = seen.split(f'data-figure="{name}"')
        drawing = after.split("</figure>")[0]
        assert 'class="main-svg"' in drawing, name
        assert name != "parallel" or drawing.count('class="axis-title"') > 5


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_an_error_in_a_script_is_shown(tmp_path: Path) -> None:
    """Without that, the test above could not fail."""
    text = report_html(gather(tmp_path, ledger_of(1).results))
    broken = text.replace("// Figures take", "nowhere(); // Figures take", 1)
    (tmp_path / "report.html").write_text(broken)
    assert "nowhere is not defined" in in_browser(tmp_path / "report.html")


def test_a_large_page_has_the_parameters_of_the_front_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_of(3)
    pages = {}
    for most in (len(ledger.results.points()), len(ledger.results.points()) - 1):
        monkeypatch.setattr("search.report.contents.N_DETAILED", most)
        pages[most] = page_of(tmp_path, ledger)
    for name, n in (("other points", 1), ("front (validation)", 2)):
        traces = [
            t for p in pages.values() for t in p.figures["front"]["data"] if t["name"] == name
        ]
        assert sum("mixing.decay" in trace["text"][0] for trace in traces) == n
    whole, large = pages.values()
    assert "Hover over a point to see" in whole.text
    assert "Hover over a point on the front to see" in large.text


def test_a_table_of_a_large_front_compares_its_points_once(tmp_path: Path) -> None:
    contents = gather(tmp_path, ledger_of(3).results)
    assert contents.like is contents.like


def test_every_trial_has_a_row(tmp_path: Path) -> None:
    """Also those that were stopped, failed, or run; with its best accuracies and its cost."""
    ledger = new_ledger()
    for _ in story(ledger):
        pass
    page = page_of(tmp_path, ledger)
    records = ledger.results.records()
    assert {f"trial-{record.trial}" for record in records} <= page.ids
    assert {record.state for record in records} == set(get_args(State))
    for text in ("stopped early at epoch 3", "failed: error", "unfinished"):
        assert text in page.text
    best = max(p.accuracies["natural"] for p in ledger.results.points() if p.trial == "0000")
    row = page.text.split("0000 completed")[1].split("0001 failed")[0]
    assert f"{100 * best:.1f}" in row


def test_the_exact_name_of_a_point_can_be_copied(tmp_path: Path) -> None:
    ledger = ledger_of(4, THREE)
    text = page_of(tmp_path, ledger).text
    for point in ledger.results.front().points:
        assert f"show {point.name} " in f"{text} "


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1400, 390])
def test_only_tables_and_wide_figures_scroll_sideways(tmp_path: Path, width: int) -> None:
    (tmp_path / "report.html").write_text(report_html(whole(tmp_path)))
    with browsing(tmp_path / "profile", (width, 1000)) as page:
        page.open((tmp_path / "report.html").as_uri())
        deadline = time.monotonic() + 120
        while page.value("document.documentElement.dataset.drawn") != "yes":
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert page.value("document.documentElement.scrollWidth") <= width
        assert page.value("document.querySelectorAll('.wide').length") > 4
