"""What a sweep found, from its study: report.html, front.csv, .json, .png, plots/ and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from generalist_core.config.mixing import ratio_text
from search.files import write_bytes, write_json, write_text
from search.front.front import Front
from search.front.points import FrontPoint
from search.front.repeats import spreads
from search.report.plots import as_csv, drawn, front_plot, write_plots
from search.report.published import ReferencePoint
from search.running.mixtures import write_models
from search.study.results import Results


def front_document(folder: Path, results: Results) -> dict[str, Any]:
    """The front as one JSON document."""
    front, counts = results.front(), results.counts()
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
        "failures": results.failure_kinds(),
        "cost": results.cost(),
    }


def write_files(folder: Path, results: Results, reference: Sequence[ReferencePoint] = ()) -> Front:
    """Write what a sweep found into its folder, and the weights of the front to `models/`.

    `reference` are published points to be drawn beside it.
    """
    points, front = results.points(), results.front()
    write_json(folder / "front.json", front_document(folder, results))
    write_text(folder / "front.csv", front_csv(front))
    write_bytes(folder / "front.png", drawn(front_plot(front, points), "png", dpi=150))
    write_models(folder, front)
    write_plots(folder / "plots", front, points, results.history())
    write_page(folder, results, reference)
    return front


def write_page(folder: Path, results: Results, reference: Sequence[ReferencePoint] = ()) -> None:
    """Write `report.html` into a sweep's folder."""
    from search.report.contents import gather
    from search.report.page import report_html

    write_text(folder / "report.html", report_html(gather(folder, results, reference)))


def front_csv(front: Front) -> str:
    """One row a point: trial, mixing ratio, and each objective with its interval."""
    columns = [f"{name}{end}" for name in front.objectives for end in ("", "_low", "_high")]
    rows: list[list[Any]] = [["trial", "mixing_ratio", *columns, "n_images"]]
    for point in front.points:
        cells = [(point.accuracies[name], *point.interval(name)) for name in front.objectives]
        numbers = [number for cell in cells for number in cell]
        rows.append([point.trial, ratio_text(point.mixing_ratio), *numbers, point.n_images])
    return as_csv(rows)


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
        ratio, like = ratio_text(point.mixing_ratio), [numbers[n] for n in alike[point.name]]
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
