"""The lineages of a sweep: how long each robust expert grew, and what its branches released."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from search.front.front import Front
from search.front.points import FrontPoint
from search.report.contents import ReportContents
from search.report.descent import lineage_of
from search.report.figures import MARGIN, OTHERS, measured_text, params_text
from spaces.lineages import START

SYMBOLS = {True: "circle", False: "diamond"}
"""The marker of a branch whose robust expert rests, and of one in which both are trained."""

Branch = Sequence[FrontPoint]
"""The points that one trial released."""

Marker = tuple[float | None, float | None, str, str]
"""Its place, its text on hovering, and its symbol."""

GAP: Marker = (None, None, "", "circle")


def lineages_figure(contents: ReportContents) -> go.Figure | None:
    """The hypervolume of each branch against the length of its lineage; None without lineages.

    A line is a lineage, through its branches in the order of its length. The coloured ones hold a
    point of the front; all others are one trace, which is drawn faster than hundreds.
    """
    lineages = _lineages(contents)
    if not lineages:
        return None
    on_front = {point.trial for point in contents.front.points}
    leading = [one for one in lineages if any(branch[0].trial in on_front for branch in one)]
    others = [one for one in lineages if one not in leading]
    figure = go.Figure()
    if others:
        figure.add_trace(_trace(contents, others, "other lineages", width=1, color=OTHERS))
    for one in leading:
        figure.add_trace(_trace(contents, [one], f"lineage of trial {one[0][0].trial}", width=2.5))
    figure.update_layout(
        height=420,
        margin=MARGIN,
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": "epochs of the lineage"}, "type": "log"},
        yaxis={"title": {"text": "hypervolume of the branch"}, "rangemode": "tozero"},
    )
    return figure


def _lineages(contents: ReportContents) -> list[list[Branch]]:
    """The branches of each lineage, in the order of its length."""
    lineages: dict[str, list[Branch]] = {}
    for branch in contents.curves:
        name = lineage_of(contents.params.get(branch[0].trial, {}), branch[0].config)
        if name is not None:
            lineages.setdefault(name, []).append(branch)
    for branches in lineages.values():
        branches.sort(key=lambda branch: contents.params[branch[0].trial][START])
    return list(lineages.values())


def _trace(
    contents: ReportContents, lineages: Sequence[Sequence[Branch]], name: str, **line: Any
) -> go.Scatter:
    """Lineages with gaps between them."""
    markers = [m for one in lineages for m in (GAP, *(_marker(contents, b) for b in one))][1:]
    x, y, text, symbol = map(list, zip(*markers, strict=True))
    marker = {"size": 4 + 2 * line["width"], "symbol": symbol}
    if "color" in line:
        marker["color"] = line["color"]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=name,
        text=text,
        hoverinfo="text",
        line=line,
        marker=marker,
    )


def _marker(contents: ReportContents, branch: Branch) -> Marker:
    params = contents.params[branch[0].trial]
    texts = [measured_text(contents, point) for point in branch]
    if contents.has_all_params:
        texts += params_text(params)
    rests = any(value is True for name, value in params.items() if name.endswith(".rests"))
    hypervolume = Front.of(branch, contents.objectives).hypervolume
    return params[START], hypervolume, "<br>".join(texts), SYMBOLS[rests]
