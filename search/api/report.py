"""Write the report of a sweep again."""

from __future__ import annotations

from collections.abc import Sequence

from search.report.published import ReferencePoint
from search.report.write import write_files
from search.study.folder import Sweep


def write_report(sweep: Sweep, reference: Sequence[ReferencePoint] = ()) -> None:
    """Write the report of a sweep into its folder, and the weights of its front to `models/`.

    `reference` are published points to be drawn beside the front.
    """
    write_files(sweep.folder, sweep.results, reference)
