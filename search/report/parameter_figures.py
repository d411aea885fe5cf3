"""The interactive figures of a report that show the effect of the parameters, by plotly."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from generalist_core.config.mixing import GLOBAL, ratio_key, released_order
from search.front.points import FrontPoint
from search.report.contents import ReportContents
from search.report.figures import FRONT, MARGIN, OTHERS, curve_color, measured_text
from search.report.importance import Importance
from search.wording import value_text

NOT_SET = "not set"

RATIO = "mixing ratio"

NEGLIGIBLE = 0.005
"""Parameters of a smaller fraction for every target are not drawn."""

TITLE_WIDTH = 38
"""Characters in a line of the title of a slice."""

DOTS: dict[bool, dict[str, Any]] = {
    False: {"mode": "markers", "marker": {"color": OTHERS, "size": 5}},
    True: {"mode": "markers", "marker": {"color": FRONT, "size": 7}},
}
"""How a dot of a slice is drawn that is on the front or not."""

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
    for name in _by_falling_importance(contents):
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


def _by_falling_importance(contents: ReportContents) -> list[str]:
    """The parameters that the released trials have, by falling importance for the front."""
    fractions = next((one.fractions for one in contents.given_importances), {})
    names = {name for trial in contents.best for name in contents.params.get(trial, {})}
    return sorted(names, key=lambda name: (-fractions.get(name, 0.0), name))


def by_importance(given: Sequence[Importance]) -> tuple[list[str], list[str]]:
    """The parameters by rising importance for the first target, and those negligible for all."""
    names = sorted({name for one in given for name in one.fractions})
    names.sort(key=lambda name: given[0].fractions.get(name, 0.0))
    most = {name: max(one.fractions.get(name, 0.0) for one in given) for name in names}
    return (
        [name for name in names if most[name] >= NEGLIGIBLE],
        sorted(name for name in names if most[name] < NEGLIGIBLE),
    )


def slice_figures(contents: ReportContents) -> list[go.Figure]:
    """Each objective against the mixing ratio of the mixtures, then against what else varies.

    Against a parameter, a dot is a training, at the best value that one of its points reaches. A
    training without the parameter is left out.
    """
    figures = [
        _ratio_slice(contents, title, [rounded(value) for value in values if value is not None])
        for title, values in ratio_columns(contents.points).items()
    ]
    for name in _by_falling_importance(contents):
        values = {trial: contents.params.get(trial, {}).get(name) for trial in contents.best}
        given = {trial: value for trial, value in values.items() if value is not None}
        if len(set(map(str, given.values()))) > 1:
            figures.append(_parameter_slice(contents, name, given))
    return figures


def _ratio_slice(contents: ReportContents, title: str, ratios: Sequence[float]) -> go.Figure:
    """The mixtures of a trial are joined by a line if the ratio is one number."""
    figure = _rows(contents, title)
    mixtures = [point for point in contents.points if not point.is_global]
    ratio_of = dict(zip((point.name for point in mixtures), ratios, strict=True))
    on_front = {point.name for point in contents.front.points}
    has_curves = title == RATIO
    for row, name in enumerate(contents.objectives, 1):
        if has_curves:
            figure.add_trace(_curves(contents, name), row=row, col=1)
        for is_on in (False, True):
            chosen = [point for point in mixtures if (point.name in on_front) == is_on]
            dots = go.Scatter(
                x=[ratio_of[point.name] for point in chosen],
                y=[rounded(100 * point.accuracies[name]) for point in chosen],
                text=[measured_text(contents, point) for point in chosen],
                hoverinfo="text",
                **DOTS[is_on],
            )
            figure.add_trace(dots, row=row, col=1)
    return figure


def _parameter_slice(contents: ReportContents, name: str, values: Mapping[str, Any]) -> go.Figure:
    """`values` are those of the trainings that have the parameter, by their trial."""
    n, n_all = len(values), len(contents.best)
    title = name.removeprefix("experts.") + (f" ({n}/{n_all})" if n < n_all else "")
    figure = _rows(contents, "<br>".join(html.escape(line) for line in wrap(title, TITLE_WIDTH)))
    is_choice = any(isinstance(value, str | bool) for value in values.values())
    choices = sorted(set(map(str, values.values())))
    for row, objective in enumerate(contents.objectives, 1):
        for is_on in (False, True):
            trials = [trial for trial in values if (trial in contents.n_on_front) == is_on]
            texts = [value_text(values[trial]) for trial in trials]
            best = [contents.best[trial][objective] for trial in trials]
            dots = go.Scatter(
                x=[
                    choices.index(str(values[t])) if is_choice else rounded(values[t])
                    for t in trials
                ],
                y=[rounded(100 * accuracy) for accuracy in best],
                text=[
                    f"trial {trial}<br>{html.escape(text)}<br>{100 * accuracy:.1f} %"
                    for trial, text, accuracy in zip(trials, texts, best, strict=True)
                ],
                hoverinfo="text",
                **DOTS[is_on],
            )
            figure.add_trace(dots, row=row, col=1)
    if is_choice:
        axis = {
            "tickvals": list(range(len(choices))),
            "ticktext": [html.escape(choice) for choice in choices],
            "range": [-0.5, len(choices) - 0.5],
        }
        figure.update_xaxes(**axis)
    elif _spans_much(list(values.values())):
        figure.update_xaxes(type="log")
    return figure


def _rows(contents: ReportContents, title: str) -> go.Figure:
    """A figure with one row for each objective."""
    n = len(contents.objectives)
    figure = make_subplots(rows=n, cols=1, shared_xaxes=True, vertical_spacing=0.15 / n)
    for row, name in enumerate(contents.objectives, 1):
        figure.update_yaxes(title_text=f"{html.escape(name)} (%)", row=row, col=1)
    figure.update_xaxes(title_text=title, automargin=True, row=n, col=1)
    return figure.update_layout(
        height=70 + 150 * n,
        margin={**MARGIN, "t": 12},
        hovermode="closest",
        showlegend=False,
    )


def ratio_columns(points: Sequence[FrontPoint]) -> dict[str, list[float | None]]:
    """The mixing ratio of each point: one number for two experts, else one weight per expert.

    The global learner has none.
    """
    released = [point.mixing_ratio for point in points]
    keys = [() if ratio == GLOBAL else ratio_key(ratio) for ratio in released]
    titles = [RATIO]
    if any(len(key) > 1 for key in keys):
        experts = points[0].config["experts"]
        titles = [f"weight of {html.escape(expert['name'])}" for expert in experts]
    return {title: [key[i] if key else None for key in keys] for i, title in enumerate(titles)}


def _curves(contents: ReportContents, name: str) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for curve in contents.curves:
        x += [*(released_order(point.mixing_ratio)[0] for point in curve), None]
        y += [*(100 * point.accuracies[name] for point in curve), None]
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": curve_color(contents), "width": 1}, hoverinfo="skip"
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
    is_log = _spans_much(there)
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


def _spans_much(values: Sequence[float]) -> bool:
    """Whether an axis of these numbers is logarithmic."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 20


def rounded(number: float) -> float:
    """Five digits of a number, more than can be seen in a figure."""
    return float(f"{number:.5g}")


def _short(name: str) -> str:
    """A dotted path without the part that the paths of all experts have in common."""
    return html.escape(name.removeprefix("experts."))
