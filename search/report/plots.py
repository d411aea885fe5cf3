"""The main plots for print, by matplotlib, and the numbers in them as CSV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist_core.config.mixing import GLOBAL, ratio_text, released_order
from generalist_core.training.evaluator import OperatingPoint
from search.files import write_bytes, write_text
from search.front.front import Front
from search.front.points import FrontPoint, accuracy_interval, release_curves, values_of
from search.study.records import Growth
from search.study.results import Results
from search.study.tables import history_table, points_table
from search.wording import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRINT_DPI = 300


def write_plots(folder: Path, results: Results) -> None:
    """Write front and hypervolume as PNG and SVG, and the numbers in them as CSV, into a folder."""
    folder.mkdir(exist_ok=True)
    for name, figure in (
        ("front", front_plot(results.front(), results.points())),
        ("hypervolume", growth_plot(results.history())),
    ):
        for form in ("png", "svg"):
            write_bytes(folder / f"{name}.{form}", image_of(figure, form, dpi=PRINT_DPI))
    write_text(folder / "points.csv", table_csv(points_table(results)))
    write_text(folder / "hypervolume.csv", table_csv(history_table(results)))


def image_of(figure: Figure, form: str, *, dpi: int) -> bytes:
    """A figure as the content of a file; equal figures give equal bytes."""
    from matplotlib import rc_context

    image = io.BytesIO()
    with rc_context({"svg.hashsalt": "generalist-search"}):
        figure.savefig(
            image, format=form, dpi=dpi, metadata={"Date": None} if form == "svg" else {}
        )
    return image.getvalue()


def front_plot(front: Front, points: Sequence[FrontPoint]) -> Figure:
    """The first two objectives: all operating points, the curve of each trial, and the front.

    A third objective is the colour of the points on the front, which then are not joined by a line
    because the front is a surface.
    """
    figure, axes = _figure_with_axes()
    names = front.objectives[:2]
    for curve in release_curves(points):
        values = 100 * values_of(curve, names)
        axes.plot(values[:, 0], values[:, 1], "o-", color="0.75", markersize=3, linewidth=0.8)
    if front.points:
        _draw_front(figure, axes, front)
    if learners := [point for point in points if point.is_global]:
        places = (100 * values_of(learners, names)).T
        axes.plot(*places, "*", color="C2", markersize=9, mfc="none", label="global learner")
    axes.plot([], [], "o-", color="0.75", markersize=3, label="a trial's mixtures")
    axes.set_xlabel(f"{names[0]} accuracy (%)")
    axes.set_ylabel(f"{names[1]} accuracy (%)")
    axes.set_title(
        f"{plural(len(front.points), 'point')}, hypervolume {front.hypervolume:.4f} (validation)"
    )
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
    """The release curve of one trial: each accuracy against the mixing ratio, with 95 % intervals.

    The accuracies of the global learner, which has no ratio, are lines across. With more than two
    experts, a ratio is not one number, and the mixtures are placed side by side.
    """
    figure, axes = _figure_with_axes()
    mixtures = [point for point in points if point.mixing_ratio != GLOBAL]
    learners = [point for point in points if point.mixing_ratio == GLOBAL]
    curve = sorted(mixtures, key=lambda point: released_order(point.mixing_ratio))
    ratios = [released_order(point.mixing_ratio) for point in curve]
    places = [n if len(ratio) > 1 else ratio[0] for n, ratio in enumerate(ratios)]
    for name in curve[0].accuracies:
        values = np.array([point.accuracies[name] for point in curve])
        ends = np.array([accuracy_interval(p.accuracies[name], p.n_images) for p in curve])
        around = 100 * np.abs(ends.T - values)
        drawn = axes.errorbar(places, 100 * values, yerr=around, fmt="o-", markersize=4, label=name)
        for learner in learners:
            line = {"color": drawn[0].get_color(), "linestyle": ":"}
            axes.axhline(100 * learner.accuracies[name], **line, label=f"{name}, global learner")
    if isinstance(curve[0].mixing_ratio, tuple):
        texts = [ratio_text(point.mixing_ratio) for point in curve]
        axes.set_xticks(places, texts, rotation=30, ha="right")
    axes.set_xlabel("mixing ratio")
    axes.set_ylabel("accuracy (%), validation")
    axes.set_ylim(0, 100)
    axes.legend()
    return figure


def growth_plot(history: Sequence[Growth]) -> Figure:
    """The hypervolume of the front against the cost of all trials that had ended."""
    figure, axes = _figure_with_axes()
    cost = [0.0, *(growth.forward_images for growth in history)]
    hypervolumes = [0.0, *(growth.hypervolume for growth in history)]
    axes.step(cost, hypervolumes, where="post", color="C0", linewidth=1.5)
    axes.set_xlabel("cost (forward images)")
    axes.set_ylabel("hypervolume (validation)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    return figure


def table_csv(table: Any) -> str:
    """A table of `search.study.tables` as CSV, with mixing ratios as in the other outputs."""
    if "mixing_ratio" in table:
        table = table.assign(mixing_ratio=table["mixing_ratio"].map(ratio_text))
    text: str = table.to_csv()
    return text


def _figure_with_axes() -> tuple[Figure, Axes]:
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
