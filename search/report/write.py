"""Write the files that show what a sweep found into its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.files import write_bytes, write_json, write_text
from search.folders import SweepFolder
from search.front.repeats import spreads
from search.report.plots import front_plot, image_of, table_csv, write_plots
from search.report.published import ReferencePoint
from search.running.mixtures import warn_of_lost_averages
from search.study.results import Results
from search.study.tables import front_rows
from search.wording import PROGRAM, command_text

log = logging.getLogger(__name__)


def front_document(folder: Path, results: Results) -> dict[str, Any]:
    """The front as one JSON document."""
    front = results.front()
    repeats = spreads(folder, front)
    return {
        "objectives": list(front.objectives),
        "reference_point": list(front.reference),
        "hypervolume": front.hypervolume,
        "split": "validation",
        "points": [
            {
                **point.to_dict(),
                "indistinguishable_from": front.alike(point),
                "repeats": repeats.get(point.name),
            }
            for point in front.points
        ],
        "trials": asdict(results.counts()),
        "failures": results.failure_kinds(),
        "cost": results.cost(),
    }


def write_files(
    folder: Path,
    results: Results,
    reference: Sequence[ReferencePoint] = (),
    spec: str = "knee",
) -> None:
    """Write the report, the front, and the plots for print; warn if weights of the front are lost.

    `reference` are published points to be drawn beside the front of the sweep; `spec` chooses the
    point that the report describes, see `search.front.pick.pick`.
    """
    files, points, front = SweepFolder(folder), results.points(), results.front()
    warn_of_lost_averages(files, front)
    write_json(files.front_json, front_document(folder, results))
    write_text(files.front_csv, table_csv(front_rows(results)))
    write_bytes(files.front_picture, image_of(front_plot(front, points), "png", dpi=150))
    write_page(folder, results, reference, spec)
    write_plots(files.plots, results)


def write_page(
    folder: Path,
    results: Results,
    reference: Sequence[ReferencePoint] = (),
    spec: str = "knee",
) -> None:
    """Write `report.html` into the folder of a sweep."""
    from search.report.contents import gather
    from search.report.page import report_html

    page = report_html(gather(folder, results, reference, spec))
    write_text(SweepFolder(folder).report, page)


@contextmanager
def warning_if_missing(folder: Path) -> Iterator[None]:
    """Within the context files of the report are written; an error there only causes a warning.

    The study has everything that the report shows, so that it can be written again.
    """
    try:
        yield
    except Exception as error:
        again = command_text(PROGRAM, "report", folder)
        why = f"{type(error).__name__}: {error}"
        log.warning("The report is incomplete, but the study is not: %s. Write it: %s", why, again)
