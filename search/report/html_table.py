"""The front as a sortable HTML table: validation, repeats and test beside each other."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.config.mixing import ratio_key, ratio_text
from search.front.points import FrontPoint
from search.report.contents import ReportContents
from search.report.figures import params_text


def front_table(found: ReportContents) -> str:
    """One row a point, by rising first objective; `data-value` is what a column is sorted by."""
    points, names = found.front.points, found.objectives
    numbers = {point.name: n for n, point in enumerate(points, 1)}
    alike = found.front.indistinguishable()
    heads = ["#", "trial", "mixing ratio"]
    heads += [f"{name}{part}" for name in names for part in _parts(found)]
    heads += ["like", *(["findings"] if found.verified else []), "parameters"]
    rows = []
    for point in points:
        like = " ".join(str(numbers[name]) for name in alike[point.name])
        params = "<br>".join(params_text(found.params.get(point.trial, {})))
        cells = [
            _cell(str(numbers[point.name]), numbers[point.name]),
            _cell(html.escape(point.trial), html.escape(point.trial)),
            _cell(ratio_text(point.mixing_ratio), ratio_key(point.mixing_ratio)[-1]),
            *(cell for name in names for cell in _accuracies(found, point, name)),
            _cell(like, len(alike[point.name])),
            *([_indicators(found, point)] if found.verified else []),
            f'<td class="text"><details><summary>show</summary>{params}</details></td>',
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{_button(title)}</th>" for title in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _parts(found: ReportContents) -> list[str]:
    """Which columns an objective has."""
    return ["", *([", repeats"] if found.spreads else []), *([", test"] if found.verified else [])]


def _accuracies(found: ReportContents, point: FrontPoint, name: str) -> list[str]:
    cells = [_interval(point.accuracies[name], point.interval(name))]
    if found.spreads:
        cells.append(_spread(found.spreads.get(point.name, {}).get(name)))
    if found.verified:
        row = found.verified.get(point.name)
        cells.append(_interval(row["test"][name], row["test_interval"][name]) if row else _none())
    return cells


def _indicators(found: ReportContents, point: FrontPoint) -> str:
    """What verification found suspicious about a point, by name."""
    if point.name not in found.verified:
        return _none()
    names = sorted({name for name, _ in found.suspicions(point.name)})
    return _cell("<br>".join(map(html.escape, names)) or "none", len(names))


def _interval(accuracy: float, interval: Sequence[float]) -> str:
    low, high = interval
    text = f"{100 * accuracy:.1f} <small>[{100 * low:.1f}, {100 * high:.1f}]</small>"
    return _cell(text, accuracy)


def _spread(spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return _none()
    around = "" if spread["std"] is None else f" <small>± {100 * spread['std']:.1f}</small>"
    return _cell(f"{100 * spread['mean']:.1f}{around}", spread["mean"])


def _cell(text: str, value: float | str) -> str:
    return f'<td data-value="{value}">{text}</td>'


def _none() -> str:
    return '<td data-value=""><small>none</small></td>'


def _button(title: str) -> str:
    return html.escape(title) if title == "parameters" else f"<button>{html.escape(title)}</button>"
