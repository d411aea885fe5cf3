"""Whatever stands in the names and messages of a sweep, a browser does not run it in the report."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from generalist_core.config.presets import short
from search.report.contents import ReportContents, gather
from search.report.page import report_html
from search.report.published import ReferencePoint
from search.study.failures import Failure
from tests.helpers.browser import CHROMIUM, browsing
from tests.helpers.evil import MARKUP
from tests.helpers.reports import ledger_of, space

HOVER = """
(() => {
  for (const figure of document.querySelectorAll("[data-figure]")) {
    (figure.data || []).forEach((trace, curveNumber) => {
      if (trace.type === "parcoords") return;
      try { Plotly.Fx.hover(figure, [{curveNumber, pointNumber: 0}]); } catch (error) {}
    });
  }
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const button of document.querySelectorAll("th button")) button.click();
})()
"""

FOUND = """
({
  drawn: document.documentElement.dataset.drawn,
  ran: window.ran || 0,
  images: document.querySelectorAll("body img").length,
  links: [...document.querySelectorAll("a")].filter(
    (a) => !(a.getAttribute("href") || a.getAttribute("xlink:href") || "#").startsWith("#")).length,
  text: document.body.innerText,
})
"""


def full_of_markup(folder: Path) -> ReportContents:
    """A report with markup wherever a user, a file, or an error can put text."""
    ledger = ledger_of(25)
    failure = Failure(kind="error", reason=MARKUP)
    ledger.tell_failed(ledger.ask(space, short()).trial, failure)
    contents = gather(folder, ledger.results)
    front = contents.front.points
    params = {
        trial: {MARKUP: MARKUP if int(trial) % 2 else 0.5, f"{MARKUP}2": int(trial), **own}
        for trial, own in contents.params.items()
    }
    important = [
        dataclasses.replace(
            one, target=MARKUP, fractions={MARKUP: 1.0}, n_with={MARKUP: 3}, refusal=refusal
        )
        for one, refusal in zip(contents.importances, (None, MARKUP, None), strict=True)
    ]
    indicator = {"name": MARKUP, "message": MARKUP}
    verified = {
        point.name: {
            "name": MARKUP,
            "trial": point.trial,
            "n_test_images": 100,
            "validation": dict(point.accuracies),
            "test": dict(point.accuracies),
            "test_interval": {name: point.interval(name) for name in point.accuracies},
            "attacks": {"robust": {"indicators": [indicator]}},
        }
        for point in front
    }
    accuracies = {"natural": 0.9, "robust": 0.4}
    published = ReferencePoint(name=MARKUP, accuracies=accuracies, details={MARKUP: MARKUP})
    return dataclasses.replace(
        contents,
        name=MARKUP,
        params=params,
        importances=important,
        verified=verified,
        reference=[published],
        request={"space": MARKUP, MARKUP: MARKUP},
        environment={"command": MARKUP, MARKUP: MARKUP},
    )


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("escapes", [True, False])
def test_markup_in_names_is_text_in_a_browser(tmp_path: Path, escapes: bool) -> None:
    """Without the escapes the markup runs, so that the test could fail."""
    text = report_html(full_of_markup(tmp_path))
    if not escapes:
        text = text.replace("</header>", f"</header><p>{MARKUP}</p>")
    (tmp_path / "report.html").write_text(text)
    with browsing(tmp_path / "profile") as page:
        page.open((tmp_path / "report.html").as_uri())
        deadline = time.monotonic() + 120
        while (page.value(FOUND) or {}).get("drawn") != "yes" and time.monotonic() < deadline:
            time.sleep(0.5)
        page.value(HOVER)
        time.sleep(1)
        found = page.value(FOUND)
    assert found["drawn"] == "yes"
    if not escapes:
        assert (found["ran"], found["images"], found["links"]) != (0, 0, 0)
        return
    assert (found["ran"], found["images"], found["links"]) == (0, 0, 0)
    assert found["text"].count(MARKUP) > 5
