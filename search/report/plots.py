"""The main plots for print, by matplotlib, and the numbers in them as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist_core.config.mixing import ratio_key, ratio_text
from generalist_core.training.evaluator import OperatingPoint
from search.files import write_bytes, write_text
from search.front.front import Front
from search.front.points import FrontPoint, accuracy_interval, release_curves, values_of
from search.study.records import Growth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRINT_DPI = 300


def write_plots(
    folder: Path, front: Front, points: Sequence[FrontPoint], history: Sequence[Growth]
) -> None:
    """Write front and hypervolume as PNG, SVG and CSV into a folder."""
    folder.mkdir(exist_ok=True)
    for name, figure in (
        ("front", front_plot(front, points)),
        ("hypervolume", growth_plot(history)),
    ):
        for form in ("png", "svg"):
            write_bytes(folder / f"{name}.{form}", drawn(figure, form, dpi=PRINT_DPI))
    write_text(folder / "front.csv", points_csv(front, points))
    write_text(folder / "hypervolume.csv", growth_csv(history))


def drawn(figure: Figure, form: str, *, dpi: int) -> bytes:
    """A figure as the content of a file; an equal figure gives equal bytes."""
    from matplotlib import rc_context

    image = io.BytesIO()
    with rc_context({"svg.hashsalt": "generalist-search"}):
        figure.savefig(
            image, format=form, dpi=dpi, metadata={"Date": None} if form == "svg" else {}
        )
    return image.getvalue()


def front_plot(front: Front, points: Sequence[FrontPoint]) -> Figure:
    """The first two objectives: all operating points, each trial's curve, and the front.

    A third objective is the colour of the front's points, which then have no line: what they are
    joined by is a surface.
    """
    figure, axes = _figure()
    drawn_names = front.objectives[:2]
    for curve in release_curves(points):
        values = 100 * values_of(curve, drawn_names)
        axes.plot(values[:, 0], values[:, 1], "o-", color="0.75", markersize=3, linewidth=0.8)
    if front.points:
        _draw_front(figure, axes, front)
    axes.plot([], [], "o-", color="0.75", markersize=3, label="a trial's mixtures")
    axes.set_xlabel(f"{drawn_names[0]} accuracy (%)")
    axes.set_ylabel(f"{drawn_names[1]} accuracy (%)")
    axes.set_title(f"{len(front.points)} points, hypervolume {front.hypervolume:.4f} (validation)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _draw_front(figure: Figure, axes: Axes, front: Front) -> None:
    names = front.objectives[:2]
    x, y = 100 * values_of(front.points, names).T
    bars = 100 * np.abs(_intervals(front) - values_of(front.points, names).T[:, None, :])
    third = front.objectives[2:3]
    if not third:
        axes.step(x, y, where="pre", color="C0", linewidth=1.5)
    axes.errorbar(
        x,
        y,
        xerr=bars[0],
        yerr=bars[1],
        fmt="none" if third else "o",
        ecolor="0.6" if third else "C0",
        color="C0",
        elinewidth=0.6,
        markersize=5,
        label=None if third else "front",
    )
    if third:
        colours = 100 * values_of(front.points, third)[:, 0]
        dots = axes.scatter(x, y, c=colours, s=30, zorder=3, label="front")
        figure.colorbar(dots, label=f"{third[0]} accuracy (%)")


def release_plot(points: Sequence[OperatingPoint]) -> Figure:
    """One trial's release curve: each accuracy against the mixing ratio, with 95 % intervals.

    With more than two experts a ratio is no number; the mixtures then stand in a row.
    """
    figure, axes = _figure()
    curve = sorted(points, key=lambda point: ratio_key(point.mixing_ratio))
    places = [
        n if isinstance(p.mixing_ratio, tuple) else p.mixing_ratio for n, p in enumerate(curve)
    ]
    for name in curve[0].accuracies:
        values = np.array([point.accuracies[name] for point in curve])
        ends = np.array([accuracy_interval(p.accuracies[name], p.n_images) for p in curve])
        around = 100 * np.abs(ends.T - values)
        axes.errorbar(places, 100 * values, yerr=around, fmt="o-", markersize=4, label=name)
    if isinstance(curve[0].mixing_ratio, tuple):
        texts = [ratio_text(point.mixing_ratio) for point in curve]
        axes.set_xticks(places, texts, rotation=30, ha="right")
    axes.set_xlabel("mixing ratio")
    axes.set_ylabel("accuracy (%), validation")
    axes.set_ylim(0, 100)
    axes.legend()
    return figure


def growth_plot(history: Sequence[Growth]) -> Figure:
    """The front's hypervolume against the cost of all trials that had ended."""
    figure, axes = _figure()
    cost = [0.0, *(growth.forward_images for growth in history)]
    worth = [0.0, *(growth.hypervolume for growth in history)]
    axes.step(cost, worth, where="post", color="C0", linewidth=1.5)
    axes.set_xlabel("cost (forward images)")
    axes.set_ylabel("hypervolume (validation)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    return figure


def points_csv(front: Front, points: Sequence[FrontPoint]) -> str:
    """One row an operating point: trial, ratio, accuracies and intervals, whether on the front."""
    names, on_front = front.objectives, {point.name for point in front.points}
    columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    rows: list[list[Any]] = [["trial", "mixing_ratio", *columns, "n_images", "on_front"]]
    for point in points:
        cells = [x for name in names for x in (point.accuracies[name], *point.interval(name))]
        ratio, on = ratio_text(point.mixing_ratio), int(point.name in on_front)
        rows.append([point.trial, ratio, *cells, point.n_images, on])
    return as_csv(rows)


def growth_csv(history: Sequence[Growth]) -> str:
    """One row a trial that ended, in that order."""
    rows = [(g.trial, g.forward_images, f"{g.elapsed_s:.3f}", g.hypervolume) for g in history]
    return as_csv([("trial", "forward_images", "elapsed_s", "hypervolume"), *rows])


def as_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the text of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _intervals(front: Front) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(2 objectives, low and high, points)."""
    names = front.objectives[:2]
    rows = np.array([[p.interval(name) for p in front.points] for name in names])
    return rows.reshape(len(names), len(front.points), 2).transpose(0, 2, 1)
