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
from search.wording import printable, value_text


def console_table(folder: Path, front: Front, kept: Mapping[str, float]) -> Table:
    """The front in % with 95 % intervals, and the mean and standard deviation over repeats.

    The column `like` has the numbers of the points that one cannot be told apart from, and `kept`
    the shares of re-draws in which a point stays on the front. An accuracy below the region of
    interest is marked by the least that counts.
    """
    like, repeats = numbers_alike(front), spreads(folder, front)
    table = Table(title="Natural-robust front (validation)", title_justify="left")
    floors = dict(zip(front.objectives, front.reference, strict=True))
    ratio = f"mixing ratio\n{_ends(front)}"
    for column in ("#", "trial", ratio, *(f"{name} %" for name in front.objectives), "kept %"):
        table.add_column(column, justify="right")
    table.add_column("like")
    for number, point in enumerate(front.points, 1):
        cells = [
            _cell(point, name, repeats.get(point.name), floor) for name, floor in floors.items()
        ]
        cells.append(f"{100 * kept[point.name]:.0f}")
        alike = " ".join(map(str, like[point.name]))
        table.add_row(str(number), point.trial, ratio_text(point.mixing_ratio), *cells, alike)
    return table


def trials_console_table(table: Any, column: str | None = None) -> Table:
    """The trials of `search.study.tables.trials_table`, with one of its parameters if it is named.

    The others are left out, because there are too many.
    """
    best = [name for name in table.columns if name.startswith("best_")]
    shown = ["on_front", *best, "forward_images", "seconds"]
    further = [column] if column in table.columns and column not in (*shown, "state") else []
    made = Table(title="Trials", title_justify="left")
    made.add_column("trial", justify="right")
    made.add_column("state", overflow="fold")
    for name in (*shown, *further):
        made.add_column(f"{name} %" if name in best else name, justify="right", overflow="fold")
    for trial, row in table.astype(object).where(table.notna(), None).iterrows():
        cells = [_text(name, row[name]) for name in (*shown, *further)]
        made.add_row(str(trial), _state(row), *cells)
    return made


def _text(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column.startswith("best_"):
        return f"{100 * value:.1f}"
    is_cost = column in ("forward_images", "seconds")
    return f"{value:.3g}" if is_cost else printable(value_text(value))


def _state(row: Any) -> str:
    match row["state"]:
        case "stopped early":
            return f"stopped early at epoch {row['stopped_at']}"
        case "failed":
            return printable(f"failed: {row['reason']}")
        case state:
            return str(state)


def _ends(front: Front) -> str:
    """Which experts the ends of the ratio are, or whose weights it holds."""
    experts = next((point.config.get("experts", ()) for point in front.points), ())
    names = [printable(expert["name"]) for expert in experts]
    if len(names) == 2:
        return f"0 = {names[0]}\n1 = {names[1]}"
    return ", ".join(names)


def _cell(
    point: FrontPoint, name: str, repeats: Mapping[str, Any] | None, floor: float = 0.0
) -> str:
    text = interval_text(point.accuracies[name], point.interval(name))
    if point.accuracies[name] < floor:
        text += f" < {100 * floor:g}"
    if repeats is None:
        return text
    spread = repeats[name]["std"]
    deviation = "" if spread is None else f" ± {100 * spread:.1f}"
    return f"{text}; repeats {100 * repeats[name]['mean']:.1f}{deviation}"
