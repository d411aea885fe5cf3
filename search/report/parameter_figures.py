"""The interactive figures of a report that show the effect of the parameters, by plotly."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from generalist_core.config.mixing import ratio_key
from search.front.points import FrontPoint
from search.report.contents import ReportContents
from search.report.figures import FRONT, MARGIN, OTHERS, accuracy_title, curve_color, measured_text
from search.report.importance import Importance
from search.wording import value_text

NOT_SET = "not set"

NEGLIGIBLE = 0.005
"""Parameters of a smaller fraction for every target are not drawn."""

AXIS_WIDTH, WIDEST = 112, 3600
"""Pixels between two axes of the parallel coordinates, and in all: WebGL may fail beyond 4096."""


def parallel_figure(contents: ReportContents) -> go.Figure:
    """Parallel coordinates: one line per operating point, one axis per objective and parameter.

    Objectives and mixing ratio come first, then the parameters that vary, by falling importance.
    A parameter that a trial does not have, such as a field of another optimizer, is at the foot of
    its axis. The colour is the second objective.
    """
    points = contents.points
    on_front = {point.name for point in contents.front.points}
    varying = [_choices("on the front", [str(p.name in on_front).lower() for p in points])]
    for name in contents.objectives:
        accuracies = [round(100 * point.accuracies[name], 2) for point in points]
        varying.append(_numeric(f"{name} (%)", accuracies))
    varying += [_numeric(name, values) for name, values in ratio_columns(points).items()]
    params = [contents.params.get(point.trial, {}) for point in points]
    fractions = next((one.fractions for one in contents.given_importances), {})
    names = {name for values in params for name in values}
    for name in sorted(names, key=lambda name: (-fractions.get(name, 0.0), name)):
        axis = _dimension(name, [values.get(name) for values in params])
        varying += [axis] if axis is not None else []
    colour = contents.objectives[1]
    figure = go.Figure(
        go.Parcoords(
            dimensions=varying,
            labelangle=-30,
            labelfont={"size": 12},
            tickfont={"size": 11},
            rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
            line={
                "color": [rounded(100 * point.accuracies[colour]) for point in points],
                "colorscale": "Viridis",
                "showscale": True,
                "colorbar": {"title": {"text": f"{html.escape(colour)} (%)", "side": "right"}},
            },
        )
    )
    figure.update_layout(
        height=535,
        width=160 + min(AXIS_WIDTH * len(varying), WIDEST),
        margin={"l": 56, "r": 24, "t": 185, "b": 24},
    )
    return figure


def importance_figure(given: Sequence[Importance]) -> go.Figure:
    """One column of bars per target, one row per parameter, by importance for the first target."""
    names, _ = by_importance(given)
    titles = [html.escape(importance.target) for importance in given]
    figure = make_subplots(
        rows=1, cols=len(given), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03
    )
    for column, importance in enumerate(given, 1):
        texts = [_importance_text(importance, name) for name in names]
        bars = go.Bar(
            x=[round(100 * importance.fractions.get(name, 0.0), 3) for name in names],
            y=[_label(importance, name) for name in names],
            orientation="h",
            marker={"color": FRONT},
            text=texts,
            textposition="none",
            hoverinfo="text",
            showlegend=False,
        )
        figure.add_trace(bars, row=1, col=column)
        figure.update_xaxes(title_text="%", rangemode="tozero", row=1, col=column)
    figure.update_yaxes(automargin=True, ticklabelstandoff=6, showgrid=False)
    figure.update_layout(
        height=140 + 20 * max(4, len(names)), margin={**MARGIN, "l": 16, "t": 64}, bargap=0.3
    )
    return figure


def by_importance(given: Sequence[Importance]) -> tuple[list[str], list[str]]:
    """The parameters by rising importance for the first target, and those negligible for all."""
    names = sorted({name for one in given for name in one.fractions})
    names.sort(key=lambda name: given[0].fractions.get(name, 0.0))
    most = {name: max(one.fractions.get(name, 0.0) for one in given) for name in names}
    return (
        [name for name in names if most[name] >= NEGLIGIBLE],
        sorted(name for name in names if most[name] < NEGLIGIBLE),
    )


def slices_figure(contents: ReportContents) -> go.Figure:
    """Each objective against mixing ratio and sync interval; the front is highlighted."""
    points = contents.points
    on_front = {point.name for point in contents.front.points}
    slices: dict[str, Callable[[FrontPoint], float]] = {
        name: lambda point, i=i: ratio_key(point.mixing_ratio)[i]  # type: ignore[misc]
        for i, name in enumerate(ratio_columns(points))
    }
    slices["sync interval (epochs)"] = lambda point: point.config["sync"]["every_epochs"]
    figure = make_subplots(
        rows=len(contents.objectives),
        cols=len(slices),
        shared_yaxes=True,
        shared_xaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.05,
    )
    for row, name in enumerate(contents.objectives, 1):
        for column, (title, of) in enumerate(slices.items(), 1):
            is_ratio = column < len(slices)
            place = {"row": row, "col": column}
            if is_ratio and len(slices) == 2:
                figure.add_trace(_curves(contents, of, name), **place)
            for is_on, colour, size in ((False, OTHERS, 5), (True, FRONT, 8)):
                chosen = [point for point in points if (point.name in on_front) == is_on]
                figure.add_trace(_slice(contents, chosen, of, name, colour, size), **place)
            if row == len(contents.objectives):
                levels = sorted({of(point) for point in points})
                ticks = {} if is_ratio or len(levels) > 12 else {"tickvals": levels}
                figure.update_xaxes(title_text=title, **ticks, **place)
        figure.update_yaxes(title_text=accuracy_title(name), row=row, col=1)
    figure.update_layout(
        height=80 + 240 * len(contents.objectives), margin=MARGIN, showlegend=False
    )
    return figure


def ratio_columns(points: Sequence[FrontPoint]) -> dict[str, list[float]]:
    """The mixing ratio of each point: one number for two experts, else one weight per expert."""
    keys = [ratio_key(point.mixing_ratio) for point in points]
    if not keys or len(keys[0]) == 1:
        return {"mixing ratio": [key[0] for key in keys]}
    experts = [expert["name"] for expert in points[0].config["experts"]]
    return {
        f"weight of {html.escape(name)}": [key[i] for key in keys] for i, name in enumerate(experts)
    }


def _curves(contents: ReportContents, of: Callable[[FrontPoint], float], name: str) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for curve in contents.curves:
        x += [*(of(point) for point in curve), None]
        y += [*(100 * point.accuracies[name] for point in curve), None]
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": curve_color(contents), "width": 1}, hoverinfo="skip"
    )


def _slice(
    contents: ReportContents,
    points: Sequence[FrontPoint],
    of: Callable[[FrontPoint], float],
    name: str,
    colour: str,
    size: int,
) -> go.Scatter:
    return go.Scatter(
        x=[rounded(of(point)) for point in points],
        y=[rounded(100 * point.accuracies[name]) for point in points],
        mode="markers",
        marker={"color": colour, "size": size},
        text=[measured_text(contents, point) for point in points],
        hoverinfo="text",
    )


def _label(importance: Importance, name: str) -> str:
    """The parameter, and how many of the trainings have it unless all do."""
    n_with = importance.n_with.get(name, 0)
    having = "" if n_with == importance.n_trials else f" ({n_with}/{importance.n_trials})"
    return html.escape(name) + having


def _importance_text(importance: Importance, name: str) -> str:
    fraction, n_with = importance.fractions.get(name, 0.0), importance.n_with.get(name, 0)
    having = f"in {n_with} of {importance.n_trials} trainings"
    return f"{html.escape(name)}: {100 * fraction:.1f} %, {having}"


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any] | None:
    """The axis of a parameter; None if it has the same value for all points."""
    if len({str(value) for value in values}) < 2:
        return None
    if any(isinstance(value, str | bool) for value in values):
        return _choices(name, [NOT_SET if value is None else str(value) for value in values])
    return _numeric(name, values)


def _choices(name: str, values: Sequence[str]) -> dict[str, Any]:
    """An axis of names, with `not set` at its foot."""
    names = sorted(set(values), key=lambda value: (value != NOT_SET, value))
    return {
        "label": _short(name),
        "values": [names.index(value) for value in values],
        "tickvals": list(range(len(names))),
        "ticktext": [html.escape(value) for value in names],
        "range": [-0.2, max(len(names) - 0.8, 0.2)],
    }


def _numeric(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """An axis of numbers, logarithmic if they span more than a factor of 20."""
    there = [value for value in values if value is not None]
    is_log = bool(there) and min(there) > 0 and max(there) / min(there) > 20
    scale: Callable[[float], float] = math.log10 if is_log else float
    low, high = (scale(min(there)), scale(max(there))) if there else (0.0, 1.0)
    span = (high - low) or 1.0
    foot = rounded(low - 0.12 * span)
    axis: dict[str, Any] = {
        "label": _short(name),
        "values": [rounded(foot if value is None else scale(value)) for value in values],
    }
    if len(there) == len(values) and not is_log:
        return axis
    ticks = [low + fraction * span for fraction in (0, 0.25, 0.5, 0.75, 1)]
    texts = [value_text(float(f"{10**tick if is_log else tick:.2g}")) for tick in ticks]
    if len(there) < len(values):
        ticks, texts = [foot, *ticks], [NOT_SET, *texts]
    return {**axis, "tickvals": ticks, "ticktext": texts, "range": [ticks[0], ticks[-1]]}


def rounded(number: float) -> float:
    """Five digits of a number, more than can be seen in a figure."""
    return float(f"{number:.5g}")


def _short(name: str) -> str:
    """A dotted path without the part that the paths of all experts have in common."""
    return html.escape(name.removeprefix("experts."))
