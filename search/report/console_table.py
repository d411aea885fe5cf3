"""The front as a table for the console."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from generalist_core.config.mixing import ratio_text
from search.front.front import Front
from search.front.points import FrontPoint, interval_text
from search.front.repeats import spreads
from search.report.contents import numbers_alike


def console_table(folder: Path, front: Front) -> Table:
    """The front in % with 95 % intervals, and the mean and standard deviation over repeats.

    The column `like` has the numbers of the points that one cannot be told apart from.
    """
    like, repeats = numbers_alike(front), spreads(folder, front)
    table = Table(title="Natural-robust front (validation)", title_justify="left")
    for column in ("#", "trial", "mixing ratio", *(f"{name} %" for name in front.objectives)):
        table.add_column(column, justify="right")
    table.add_column("like")
    for number, point in enumerate(front.points, 1):
        cells = [_cell(point, name, repeats.get(point.name)) for name in front.objectives]
        alike = " ".join(map(str, like[point.name]))
        table.add_row(str(number), point.trial, ratio_text(point.mixing_ratio), *cells, alike)
    return table


def _cell(point: FrontPoint, name: str, repeats: Mapping[str, Any] | None) -> str:
    text = interval_text(point.accuracies[name], point.interval(name))
    if repeats is None:
        return text
    spread = repeats[name]["std"]
    deviation = "" if spread is None else f" ± {100 * spread:.1f}"
    return f"{text}; repeats {100 * repeats[name]['mean']:.1f}{deviation}"
