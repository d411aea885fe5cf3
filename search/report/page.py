"""The report of a sweep as one HTML page that loads nothing; plotly.js (4.8 MB) is a part of it.

`report.html.jinja` has the markup and the sentences, and escapes whatever a user or an error named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from generalist_core.config.mixing import ratio_key, ratio_text
from search.front.points import interval_text
from search.report.contents import ReportContents
from search.report.figures import attainment_figure, front_figure, growth_figure, pair_figure
from search.report.lineages_figure import lineages_figure
from search.report.parameter_figures import (
    NEGLIGIBLE,
    by_importance,
    importance_figure,
    parallel_figure,
    slice_figures,
)
from search.wording import duration, plural, value_text

N_FAILURES = 200
"""Maximum number of failed trials listed."""


def report_html(contents: ReportContents) -> str:
    """The whole page."""
    return rendered(
        "report.html.jinja",
        figures_of(contents),
        contents=contents,
        negligible=by_importance(contents.given_importances)[1],
        negligible_below=NEGLIGIBLE,
        n_failures=N_FAILURES,
        request=json.dumps(contents.request, indent=2),
    )


def rendered(template: str, figures: Mapping[str, go.Figure], **values: Any) -> str:
    """A page of this package, from a template that escapes the values."""
    environment = Environment(
        loader=PackageLoader("search.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    # Escapes what would close a script, and refuses NaN, which JSON does not have.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    folder = files("search.report")
    return environment.get_template(template).render(
        figures={name: _spec(figure) for name, figure in figures.items()},
        now=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        style=folder.joinpath("report.css").read_text("utf-8"),
        script=folder.joinpath("report.js").read_text("utf-8"),
        plotlyjs=get_plotlyjs(),
        duration=duration,
        plural=plural,
        interval_text=interval_text,
        ratio_key=ratio_key,
        ratio_text=ratio_text,
        value_text=value_text,
        **values,
    )


def figures_of(contents: ReportContents) -> dict[str, go.Figure]:
    """The figures by their names; those for which a sweep has too little are left out."""
    figures = {}
    if contents.points:
        figures["front"] = front_figure(contents)
        figures["parallel"] = parallel_figure(contents)
        figures |= _numbered("slice", slice_figures(contents))
        figures |= _numbered("pair", [pair_figure(contents, pair) for pair in contents.pairs])
    if contents.history:
        figures["growth"] = growth_figure(contents.history)
    lineages = lineages_figure(contents)
    if lineages is not None:
        figures["lineages"] = lineages
    attained = contents.attainment
    if attained is not None and attained.surfaces and len(contents.objectives) == 2:
        figures["attainment"] = attainment_figure(contents, attained)
    if contents.given_importances:
        figures["importance"] = importance_figure(contents.given_importances)
    return figures


def _numbered(name: str, figures: Sequence[go.Figure]) -> dict[str, go.Figure]:
    """Figures that stand side by side."""
    return {f"{name}-{number}": figure for number, figure in enumerate(figures)}


def _spec(figure: go.Figure) -> dict[str, Any]:
    """The data and the layout of a figure without plotly's theme: the page has its own."""
    spec = figure.update_layout(template="none").to_plotly_json()
    layout = {name: value for name, value in spec["layout"].items() if name != "template"}
    return {"data": spec["data"], "layout": layout}
