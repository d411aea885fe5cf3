"""The comparison of sweeps as one HTML page that loads nothing, and its figures."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from generalist_core.config.mixing import released_text
from search.front.points import FrontPoint, interval_text, values_of
from search.report.comparison import Compared, Comparison
from search.report.figures import MARGIN, accuracy_title, columns
from search.report.page import rendered

COLOURS = ("#3b82f6", "#e8833a", "#1f9e77", "#c2459b", "#9b6dd6", "#b8901f", "#5f7f8f", "#d1495b")
"""The colours of the sweeps in turn; they can be told apart on white and on black."""

LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def comparison_html(comparison: Comparison) -> str:
    """The whole page."""
    figures = {"fronts": fronts_figure(comparison), "growth": growths_figure(comparison)}
    if len(comparison.objectives) == 2 and any(_halves(s) for s in comparison.sweeps):
        figures["attainment"] = attainments_figure(comparison)
    return rendered("comparison.html.jinja", figures, comparison=comparison)


def fronts_figure(comparison: Comparison) -> go.Figure:
    """The fronts of the sweeps in the first two objectives."""
    names, traces = comparison.objectives[:2], []
    is_plane = len(comparison.objectives) == 2
    for sweep, colour in _coloured(comparison):
        points = sweep.front.points
        trace = _steps(100 * values_of(points, names), sweep.name, colour)
        trace.update(
            text=[_hover(sweep, point) for point in points],
            hoverinfo="text",
            mode="lines+markers" if is_plane else "markers",
            marker={"size": 7, "color": colour},
        )
        traces.append(trace)
    return _between_accuracies(traces, names, height=560)


def growths_figure(comparison: Comparison) -> go.Figure:
    """The hypervolume of each sweep against the cost of its trials that had ended."""
    figure = go.Figure()
    for sweep, colour in _coloured(comparison):
        figure.add_scatter(
            x=[0.0, *(growth.forward_images for growth in sweep.history)],
            y=[0.0, *(growth.hypervolume for growth in sweep.history)],
            name=html.escape(sweep.name),
            mode="lines+markers",
            line={"shape": "hv", "color": colour, "width": 2},
            marker={"size": 4},
        )
    return figure.update_layout(
        height=380,
        margin=MARGIN,
        legend=LEGEND,
        xaxis={"title": {"text": "cost (forward images)"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "hypervolume"}, "rangemode": "tozero"},
    )


def attainments_figure(comparison: Comparison) -> go.Figure:
    """What at least half of the repeats of each sweep attain (solid), and what all do (dotted)."""
    traces = []
    for sweep, colour in _coloured(comparison):
        for values, name, dash in _halves(sweep):
            traces.append(_steps(100 * values, f"{sweep.name}: {name}", colour, dash=dash))
    return _between_accuracies(traces, comparison.objectives, height=460)


def _halves(sweep: Compared) -> list[tuple[NDArray[np.float64], str, str]]:
    """The surfaces that half of the repeats and that all attain, as values, name and dash."""
    attained = sweep.attainment
    if attained is None or not attained.surfaces:
        return []
    half = attained.surfaces[(attained.n_repeats + 1) // 2 - 1]
    pairs = [(half, "solid"), (attained.surfaces[-1], "dot")]
    return [
        (surface.values, f"{surface.n_repeats} of {attained.n_repeats} repeats", dash)
        for surface, dash in (pairs if attained.n_repeats > 1 else pairs[:1])
    ]


def _between_accuracies(
    traces: Iterable[go.Scatter], names: Sequence[str], *, height: int
) -> go.Figure:
    return go.Figure(list(traces)).update_layout(
        height=height,
        margin=MARGIN,
        hovermode="closest",
        legend=LEGEND,
        xaxis={"title": {"text": accuracy_title(names[0])}},
        yaxis={"title": {"text": accuracy_title(names[1])}},
    )


def _coloured(comparison: Comparison) -> list[tuple[Compared, str]]:
    return [(s, COLOURS[n % len(COLOURS)]) for n, s in enumerate(comparison.sweeps)]


def _steps(
    values: NDArray[np.float64], name: str, colour: str, *, dash: str = "solid"
) -> go.Scatter:
    x, y = columns(values)
    line = {"shape": "vh", "color": colour, "width": 1.5, "dash": dash}
    marker = {"size": 5, "color": colour}
    return go.Scatter(
        x=x, y=y, name=html.escape(name), mode="lines+markers", line=line, marker=marker
    )


def _hover(sweep: Compared, point: FrontPoint) -> str:
    lines = [f"<b>{html.escape(sweep.name)}</b>"]
    lines.append(f"trial {point.trial}, {released_text(point.mixing_ratio)}")
    for name in sweep.front.objectives:
        interval = interval_text(point.accuracies[name], point.interval(name))
        lines.append(f"{html.escape(name)} {interval} %")
    return "<br>".join(lines)
