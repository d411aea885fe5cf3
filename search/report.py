"""What a sweep found, from its study: front.csv, front.json, front.png and a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from generalist_core.averaging import mix
from generalist_core.config import Ratio, as_weights
from search.files import load_tensors, save_tensors, write_bytes, write_json, write_text
from search.front import Front, FrontPoint, values_of
from search.ledger import Ledger
from search.repeats import spreads
from search.trial import AVERAGES


def front_document(folder: Path, ledger: Ledger) -> dict[str, Any]:
    """The front as one JSON document."""
    front, counts = ledger.front(), ledger.counts()
    alike = front.indistinguishable()
    return {
        "objectives": list(front.objectives),
        "reference_point": list(front.reference),
        "hypervolume": front.hypervolume,
        "split": "validation",
        "points": [
            {
                **point.to_dict(),
                "indistinguishable_from": alike[point.name],
                "repeats": spreads(folder, point, front.objectives),
            }
            for point in front.points
        ],
        "trials": {
            "completed": counts.completed,
            "stopped_early": counts.stopped_early,
            "failed": counts.failed,
            "unfinished": counts.unfinished,
        },
        "failures": ledger.failure_kinds(),
        "cost": ledger.cost(),
    }


def write_report(folder: Path, ledger: Ledger) -> Front:
    """Write the front's files into a sweep's folder, and the weights of its points to `models/`."""
    points, front = ledger.points(), ledger.front()
    write_json(folder / "front.json", front_document(folder, ledger))
    write_text(folder / "front.csv", front_csv(front))
    write_bytes(folder / "front.png", front_png(front, points))
    write_models(folder, front)
    return front


def front_csv(front: Front) -> str:
    """One row a point: trial, mixing ratio, and each objective with its interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{name}{end}" for name in front.objectives for end in ("", "_low", "_high")]
    writer.writerow(["trial", "mixing_ratio", *columns, "n_images"])
    for point in front.points:
        cells = [(point.accuracies[name], *point.interval(name)) for name in front.objectives]
        numbers = [number for cell in cells for number in cell]
        writer.writerow([point.trial, _ratio_text(point.mixing_ratio), *numbers, point.n_images])
    return text.getvalue()


def front_table(folder: Path, front: Front) -> Table:
    """The front for the console, in % with 95 % intervals, and the mean of repeats.

    `like` names the points, by their numbers, from which one cannot be told apart.
    """
    numbers = {point.name: str(n) for n, point in enumerate(front.points, 1)}
    alike = front.indistinguishable()
    table = Table(title="Natural-robust front (validation)", title_justify="left")
    for column in ("#", "trial", "mixing ratio", *(f"{name} %" for name in front.objectives)):
        table.add_column(column, justify="right")
    table.add_column("like")
    for point in front.points:
        repeats = spreads(folder, point, front.objectives)
        cells = [_cell(point, name, repeats) for name in front.objectives]
        ratio, like = _ratio_text(point.mixing_ratio), [numbers[n] for n in alike[point.name]]
        table.add_row(numbers[point.name], point.trial, ratio, *cells, " ".join(like))
    return table


def _cell(point: FrontPoint, name: str, repeats: Mapping[str, Any] | None) -> str:
    low, high = point.interval(name)
    text = f"{100 * point.accuracies[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    if repeats is None:
        return text
    spread = repeats[name]["std"]
    around = "" if spread is None else f" ± {100 * spread:.1f}"
    return f"{text}; again {100 * repeats[name]['mean']:.1f}{around}"


def front_png(front: Front, points: list[FrontPoint]) -> bytes:
    """The first two objectives: all operating points, each trial's curve, and the front."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    x_name, y_name = front.objectives[:2]
    for trial in sorted({point.trial for point in points}):
        curve = sorted((p for p in points if p.trial == trial), key=lambda p: _key(p.mixing_ratio))
        values = 100 * values_of(curve, (x_name, y_name))
        axes.plot(values[:, 0], values[:, 1], "o-", color="0.75", markersize=3, linewidth=0.8)
    values = 100 * values_of(front.points, (x_name, y_name))
    axes.step(values[:, 0], values[:, 1], where="pre", color="C0", linewidth=1.5)
    bars = 100 * np.abs(_intervals(front) - values_of(front.points, (x_name, y_name)).T[:, None, :])
    axes.errorbar(
        values[:, 0],
        values[:, 1],
        xerr=bars[0],
        yerr=bars[1],
        fmt="o",
        color="C0",
        elinewidth=0.6,
        markersize=5,
        label="front",
    )
    axes.plot([], [], "o-", color="0.75", markersize=3, label="a trial's mixtures")
    axes.set_xlabel(f"{x_name} accuracy (%)")
    axes.set_ylabel(f"{y_name} accuracy (%)")
    axes.set_title(f"{len(front.points)} points, hypervolume {front.hypervolume:.4f} (validation)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def write_models(folder: Path, front: Front) -> None:
    """Mix and write the weights of every point on the front; drop those that have left it."""
    models = folder / "models"
    models.mkdir(exist_ok=True)
    wanted = {f"{point.name}.pt": point for point in front.points}
    for name, point in wanted.items():
        if not (models / name).exists():
            averages = load_tensors(folder / "trials" / point.trial / AVERAGES)
            save_tensors(models / name, mixed_state(averages, point.mixing_ratio))
    for stale in set(models.glob("*.pt")) - {models / name for name in wanted}:
        stale.unlink()


def mixed_state(averages: dict[str, Any], ratio: Ratio) -> dict[str, Any]:
    """The state dict of a mixture of experts' averages, in the experts' order."""
    names = list(next(iter(averages.values())))
    weights = as_weights(ratio, len(averages))
    mixed = mix([[state[name] for name in names] for state in averages.values()], weights)
    return dict(zip(names, mixed, strict=True))


def _intervals(front: Front) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(2 objectives, low and high, points)."""
    names = front.objectives[:2]
    rows = np.array([[p.interval(name) for p in front.points] for name in names])
    return rows.reshape(len(names), len(front.points), 2).transpose(0, 2, 1)


def _key(ratio: Ratio) -> tuple[float, ...]:
    return ratio if isinstance(ratio, tuple) else (ratio,)


def _ratio_text(ratio: Ratio) -> str:
    return "-".join(f"{weight:.3g}" for weight in _key(ratio))
