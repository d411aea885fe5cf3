"""Write the report of a sweep again."""

from __future__ import annotations

from collections.abc import Sequence

from search.lease import leased
from search.report.published import ReferencePoint
from search.report.write import write_files
from search.study.folder import Sweep, open_sweep


def write_report(
    sweep: Sweep, reference: Sequence[ReferencePoint] = (), *, spec: str = "knee"
) -> None:
    """Write the report of a sweep into its folder.

    One process writes it at a time, from the study as it is then, so that a report that was begun
    before trials ended does not replace one that was made after. `reference` are published points
    to be drawn beside the front; `spec` chooses the point that the report describes.

    Raises:
        InvalidConfigError: there is no such point, see `search.front.pick.pick`.
    """
    if spec != "knee":
        sweep.pick(spec)
    with leased(sweep.files.report_lease, waits=True):
        write_files(sweep.folder, open_sweep(sweep.folder).results, reference, spec)
