"""The interactive figures of a report in the space of the objectives, by plotly.

Only colours that carry meaning are set here; those of text and grid come from the page, which may
be light or dark. Whatever a user named is escaped, because plotly interprets some HTML in texts.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from generalist_core.config.mixing import released_text
from search.front.front import Front, non_dominated
from search.front.points import FrontPoint, interval_text, values_of
from search.front.repeats import Attainment
from search.report.contents import ReportContents
from search.study.records import Growth
from search.wording import time_unit, value_text

FRONT = "#3b82f6"

TEST = "#e8833a"

GLOBAL_STAR = {"symbol": "star-open", "size": 14, "color": "#2a9d8f", "line": {"width": 1.5}}
"""The mark around a global learner."""

TEST_BARS = "rgba(232,131,58,0.45)"

OTHERS = "rgba(128,128,128,0.55)"

PUBLISHED = "#9b6dd6"

BAND = "rgba(59,130,246,0.16)"

KNEE, CHOSEN = "#d99a00", "#d1495b"

MARGIN = {"l": 64, "r": 16, "t": 36, "b": 52}


def front_figure(contents: ReportContents) -> go.Figure:
    """All operating points, the release curves of the trials, and the front, on validation images.

    Verified points on test images and published points are added if there are any. A third
    objective is the colour of the points on the front.
    """
    names, figure = contents.objectives[:2], go.Figure()
    lines = joined([100 * values_of(curve, names) for curve in contents.curves])
    figure.add_trace(_line(lines, "release curves", curve_color(contents), width=1))
    on_front = {point.name for point in contents.front.points}
    others = [point for point in contents.points if point.name not in on_front]
    text_of = hover_text if contents.has_all_params else measured_text
    texts = [text_of(contents, point) for point in others]
    figure.add_trace(
        _dots(100 * values_of(others, names), texts, "other points", color=OTHERS, size=5)
    )
    _add_front(figure, contents)
    _add_stars(figure, contents.points, names)
    _add_picks(figure, contents)
    if contents.verified:
        _add_verified(figure, contents)
    if contents.reference:
        _add_reference(figure, contents)
    figure.update_layout(
        height=560,
        margin=MARGIN,
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": accuracy_title(names[0])}, "range": _view(contents, 0)},
        yaxis={"title": {"text": accuracy_title(names[1])}, "range": _view(contents, 1)},
    )
    return figure


def _view(contents: ReportContents, axis: int) -> list[float]:
    """The range of an axis that leaves out points far below the front, so that the front is seen.

    It contains the intervals of the front, and all verified and published points.
    """
    front, name = contents.front.points, contents.objectives[axis]
    ends = [end for point in front for end in point.interval(name)]
    ends += [row["test"][name] for row in contents.verified.values()]
    ends += [point.accuracies[name] for point in contents.reference]
    low, high = 100 * min(ends), 100 * max(ends)
    lowest = 100 * min(point.accuracies[name] for point in contents.points)
    low, span = max(min(lowest, low), low - (high - low)), high - low
    return [low - 0.05 * span, high + 0.05 * span]


def pair_figure(contents: ReportContents, pair: Front) -> go.Figure:
    """All operating points in two objectives, the front of all of them, and that in the pair."""
    names, figure = pair.objectives, go.Figure()
    on_front = {point.name for point in contents.front.points}
    others = [point for point in contents.points if point.name not in on_front]
    for points, title, color, size in (
        (others, "other points", OTHERS, 5),
        (contents.front.points, "front", FRONT, 7),
    ):
        texts = [measured_text(contents, point) for point in points]
        dots = _dots(100 * values_of(points, names), texts, title, color=color, size=size)
        figure.add_trace(dots)
    _add_stars(figure, contents.points, names)
    steps = _steps(100 * values_of(pair.points, names), "front in the pair", TEST)
    figure.add_trace(steps.update(hoverinfo="skip", mode="lines"))
    return figure.update_traces(showlegend=False).update_layout(
        height=340,
        margin={**MARGIN, "t": 12},
        hovermode="closest",
        xaxis={"title": {"text": accuracy_title(names[0])}},
        yaxis={"title": {"text": accuracy_title(names[1])}},
    )


def growth_figure(history: Sequence[Growth]) -> go.Figure:
    """The hypervolume of the front against time and the cost of all trials that had ended."""
    unit, seconds = time_unit(max((g.elapsed_s for g in history), default=0.0))
    axes = {
        "cost (forward images)": [g.forward_images for g in history],
        f"time since the first trial began ({unit})": [g.elapsed_s / seconds for g in history],
    }
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    hypervolumes = [0.0, *(g.hypervolume for g in history)]
    texts = ["", *(f"trial {g.trial}<br>hypervolume {g.hypervolume:.4f}" for g in history)]
    for column, (title, values) in enumerate(axes.items(), 1):
        line = go.Scatter(
            x=[0.0, *values],
            y=hypervolumes,
            mode="lines+markers",
            line={"shape": "hv", "color": FRONT, "width": 2},
            marker={"size": 4},
            text=texts,
            hoverinfo="text",
            showlegend=False,
        )
        figure.add_trace(line, row=1, col=column)
        figure.update_xaxes(title_text=title, rangemode="tozero", row=1, col=column)
    figure.update_yaxes(title_text="hypervolume", rangemode="tozero", row=1, col=1)
    figure.update_layout(height=320, margin=MARGIN)
    return figure


def attainment_figure(contents: ReportContents, attained: Attainment) -> go.Figure:
    """What one, some and all repeats attain, and the front of the sweep that they repeat."""
    names, figure = contents.objectives[:2], go.Figure()
    chosen = 100 * values_of(contents.front.points, names)
    figure.add_trace(_steps(chosen, "front of the sweep", OTHERS, dash="dot"))
    for surface in attained.surfaces:
        n, n_all = surface.n_repeats, attained.n_repeats
        attaining = f"{n} of {n_all} repeats" if n < n_all else f"all {n} repeats"
        colour = f"rgba(59,130,246,{0.35 + 0.65 * n / n_all:.2f})"
        name = f"attained by {attaining if n_all > 1 else 'the repeat'}"
        figure.add_trace(_steps(100 * surface.values, name, colour))
    figure.update_layout(
        height=420,
        margin=MARGIN,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": accuracy_title(names[0])}},
        yaxis={"title": {"text": accuracy_title(names[1])}},
    )
    return figure


def curve_color(contents: ReportContents) -> str:
    """The gray of release curves, fainter if there are many."""
    return f"rgba(128,128,128,{0.3 if len(contents.curves) <= 60 else 0.13})"


def hover_text(contents: ReportContents, point: FrontPoint) -> str:
    """The text shown on hovering over a point: trial, ratio, accuracies, searched parameters."""
    return "<br>".join(
        [measured_text(contents, point), *params_text(contents.params.get(point.trial, {}))]
    )


def measured_text(contents: ReportContents, point: FrontPoint) -> str:
    """The trial and ratio of a point, and its accuracies with intervals."""
    lines = [f"<b>trial {point.trial}, {released_text(point.mixing_ratio)}</b>"]
    for name in contents.objectives:
        interval = interval_text(point.accuracies[name], point.interval(name))
        lines.append(f"{html.escape(name)} {interval} %")
    return "<br>".join(lines)


def params_text(params: Mapping[str, Any]) -> list[str]:
    """One line per parameter."""
    return [html.escape(f"{name} = {value_text(value)}") for name, value in params.items()]


def accuracy_title(name: str) -> str:
    """The title of the axis of an objective."""
    return f"{html.escape(name)} accuracy (%)"


def joined(curves: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Curves as one with gaps between them, because one trace is drawn faster than hundreds."""
    gap = np.full((1, 2), np.nan)
    parts = [part for curve in curves for part in (curve, gap)]
    return np.concatenate(parts) if parts else np.empty((0, 2))


def _add_front(figure: go.Figure, contents: ReportContents) -> None:
    points, names = contents.front.points, contents.objectives[:2]
    values, third = 100 * values_of(points, names), contents.objectives[2:3]
    if not third:
        figure.add_trace(_line(values, "front's steps", FRONT, shape="vh", shown=False))
    if contents.has_band:
        figure.add_trace(_band(points, names))
    texts = [hover_text(contents, point) for point in points]
    dots = _dots(values, texts, "front (validation)", color=FRONT, size=9)
    if contents.has_bars:
        dots.error_x, dots.error_y = (_bars(points, name, FRONT) for name in names)
    if third:
        colours = (100 * values_of(points, third)[:, 0]).tolist()
        title = f"{html.escape(third[0])} (%)"
        dots.marker.update(
            color=colours,
            colorscale="Viridis",
            showscale=True,
            line={"width": 1, "color": OTHERS},  # the darkest colour is seen on black
            colorbar={"title": {"text": title, "side": "right"}, "thickness": 12},
        )
    figure.add_trace(dots)


def _add_stars(figure: go.Figure, points: Sequence[FrontPoint], names: Sequence[str]) -> None:
    """A star around each global learner."""
    learners = [point for point in points if point.is_global]
    if learners:
        places, title = 100 * values_of(learners, names), "global learner"
        stars = _trace(places, title, mode="markers", marker=GLOBAL_STAR, hoverinfo="skip")
        figure.add_trace(stars)


def _add_picks(figure: go.Figure, contents: ReportContents) -> None:
    """A ring around the knee, and around the chosen point if it is another."""
    assert contents.knee is not None
    assert contents.chosen is not None
    picked = {contents.chosen.point.name: ("chosen", contents.chosen, CHOSEN)}
    picked[contents.knee.point.name] = ("knee", contents.knee, KNEE)
    for label, pick, color in picked.values():
        place = 100 * values_of([pick.point], contents.objectives[:2])
        line = {"width": 2.5, "color": color}
        ring = {"symbol": "circle-open", "size": 18, "line": line, "color": color}
        figure.add_trace(_trace(place, label, mode="markers", marker=ring, hoverinfo="skip"))


def _band(points: Sequence[FrontPoint], names: Sequence[str]) -> go.Scatter:
    """The area between the fronts of the lower and of the upper ends of the intervals."""
    ends = 100 * np.array([[point.interval(name) for name in names] for point in points])
    low, high = (_staircase(ends[..., i]) for i in (0, 1))
    outline = np.concatenate([high, low[::-1]])
    return _trace(
        outline,
        "95 % intervals",
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=BAND,
        hoverinfo="skip",
    )


def _staircase(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The corners of the line below which the front of these values, (points, 2), dominates."""
    front = values[non_dominated(values)]
    front = front[front[:, 0].argsort()]
    inner = np.column_stack([front[:-1, 0], front[1:, 1]])
    corners = np.empty((2 * len(front) - 1, 2))
    corners[::2], corners[1::2] = front, inner
    return corners


def _add_verified(figure: go.Figure, contents: ReportContents) -> None:
    """Each verified point on test images, joined to its place on validation images."""
    names, rows = contents.objectives[:2], list(contents.verified.values())
    before = 100 * np.array([[row["validation"][name] for name in names] for row in rows])
    after = 100 * np.array([[row["test"][name] for name in names] for row in rows])
    links = joined(np.stack(pair) for pair in zip(before, after, strict=True))
    figure.add_trace(_line(links, "to test images", TEST, width=1, dash="dot", shown=False))
    texts = []
    for row in rows:
        lines = [f"<b>{html.escape(row['name'])} on {row['n_test_images']} test images</b>"]
        for name in contents.objectives:
            interval = interval_text(row["test"][name], row["test_interval"][name])
            lines.append(f"{html.escape(name)} {interval} %")
        texts.append("<br>".join([*lines, *params_text(contents.params.get(row["trial"], {}))]))
    dots = _dots(after, texts, "the same, verified (test)", color=TEST, size=8, symbol="diamond")
    for axis, name in zip(("error_x", "error_y"), names, strict=True):
        ends = np.array([row["test_interval"][name] for row in rows]).reshape(-1, 2)
        middle = np.array([row["test"][name] for row in rows])
        dots[axis] = _error_bars(ends, middle, TEST_BARS)
    figure.add_trace(dots)


def _add_reference(figure: go.Figure, contents: ReportContents) -> None:
    names = contents.objectives[:2]
    rows = [[point.accuracies[name] for name in names] for point in contents.reference]
    texts = []
    for point in contents.reference:
        head = f"<b>{html.escape(point.name)}</b> (published)"
        numbers = (f"{html.escape(k)} {100 * v:.1f} %" for k, v in point.accuracies.items())
        texts.append("<br>".join([head, *numbers, *params_text(point.details)]))
    name = "published: other models, other attacks"
    figure.add_trace(
        _dots(100 * np.array(rows), texts, name, color=PUBLISHED, size=8, symbol="triangle-up-open")
    )


def _dots(
    values: NDArray[np.float64], texts: Sequence[str], name: str, **marker: Any
) -> go.Scatter:
    """Points, (n, 2), with a text each that is shown on hovering."""
    return _trace(values, name, mode="markers", text=list(texts), hoverinfo="text", marker=marker)


def _line(
    values: NDArray[np.float64], name: str, color: str, *, shown: bool = True, **line: Any
) -> go.Scatter:
    line = {"color": color, "width": 1.5, **line}
    return _trace(values, name, mode="lines", line=line, hoverinfo="skip", showlegend=shown)


def _trace(values: NDArray[np.float64], name: str, **more: Any) -> go.Scatter:
    x, y = columns(values)
    return go.Scatter(x=x, y=y, name=name, **more)


def _steps(
    values: NDArray[np.float64], name: str, color: str, *, dash: str = "solid"
) -> go.Scatter:
    """A step line with dots at its corners, so that a single point can be seen, too."""
    steps = _line(values, name, color, shape="vh", dash=dash)
    return steps.update(mode="lines+markers", marker={"size": 5, "color": color})


def columns(values: NDArray[np.float64]) -> list[list[float | None]]:
    """The two columns as lists, gaps as None; plotly would encode arrays in binary."""
    pairs = values.reshape(-1, 2).T
    return [[None if np.isnan(x) else round(float(x), 4) for x in column] for column in pairs]


def _bars(points: Sequence[FrontPoint], name: str, color: str) -> dict[str, Any]:
    ends = np.array([point.interval(name) for point in points]).reshape(-1, 2)
    return _error_bars(ends, values_of(points, (name,))[:, 0], color)


def _error_bars(
    ends: NDArray[np.float64], middle: NDArray[np.float64], color: str
) -> dict[str, Any]:
    """Bars from the low to the high `ends`, (points, 2)."""
    below, above = 100 * (middle - ends[:, 0]), 100 * (ends[:, 1] - middle)
    sizes = {"array": above.tolist(), "arrayminus": below.tolist()}
    return {"type": "data", "thickness": 0.8, "width": 0, "color": color, **sizes}
