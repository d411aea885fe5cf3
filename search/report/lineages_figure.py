"""The lineages of a sweep: how long each robust expert grew, and what its branches released."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict
from search.front.front import Front
from search.front.points import FrontPoint, release_curves
from search.report.contents import ReportContents
from search.report.figures import MARGIN, OTHERS, measured_text, params_text
from spaces.lineages import LENGTH, START, lineage_params

SYMBOLS = {True: "circle", False: "diamond"}
"""The marker of a branch whose robust expert rests, and of one in which both are trained."""


def lineages_figure(contents: ReportContents) -> go.Figure | None:
    """The hypervolume of each branch against the length of its lineage; None without lineages.

    A line is a lineage, through its branches in the order of its length. The thick ones hold a
    point of the front.
    """
    lineages: dict[str, list[Sequence[FrontPoint]]] = {}
    for curve in release_curves(contents.points):
        params = contents.params.get(curve[0].trial, {})
        if LENGTH in params:
            shared = lineage_params(params, from_dict(curve[0].config, TrainConfig))
            lineages.setdefault(json.dumps(shared, sort_keys=True), []).append(curve)
    if not lineages:
        return None
    figure = go.Figure()
    on_front = {point.trial for point in contents.front.points}
    for number, curves in enumerate(lineages.values(), 1):
        curves.sort(key=lambda curve: contents.params[curve[0].trial][START])
        leads = any(curve[0].trial in on_front for curve in curves)
        figure.add_trace(_lineage(contents, f"lineage {number}", curves, leads=leads))
    figure.update_layout(
        height=420,
        margin=MARGIN,
        hovermode="closest",
        xaxis={"title": {"text": "epochs of the lineage"}, "type": "log"},
        yaxis={"title": {"text": "hypervolume of the branch"}, "rangemode": "tozero"},
    )
    return figure


def _lineage(
    contents: ReportContents, name: str, curves: Sequence[Sequence[FrontPoint]], *, leads: bool
) -> go.Scatter:
    params = [contents.params[curve[0].trial] for curve in curves]
    colour: dict[str, Any] = {} if leads else {"color": OTHERS}
    return go.Scatter(
        x=[one[START] for one in params],
        y=[Front.of(curve, contents.objectives).hypervolume for curve in curves],
        mode="lines+markers",
        name=name,
        text=["<br>".join(_texts(contents, curve)) for curve in curves],
        hoverinfo="text",
        line={"width": 2.5 if leads else 1, **colour},
        marker={
            "size": 8 if leads else 5,
            "symbol": [SYMBOLS[_rests(one)] for one in params],
            **colour,
        },
    )


def _rests(params: Any) -> bool:
    return any(value is True for name, value in params.items() if name.endswith(".rests"))


def _texts(contents: ReportContents, curve: Sequence[FrontPoint]) -> list[str]:
    measured = [measured_text(contents, point) for point in curve]
    return [*measured, *params_text(contents.params[curve[0].trial])]
