"""The plots for print, and the numbers in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.report.plots import write_plots
from tests.helpers.reports import THREE, TWO, ledger_of


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [TWO, THREE])
@pytest.mark.parametrize("n_trials", [0, 1, 5])
def test_plots_for_print_are_written(
    tmp_path: Path, n_trials: int, objectives: tuple[str, ...]
) -> None:
    ledger = ledger_of(n_trials, objectives)
    folder = tmp_path / "plots"
    write_plots(folder, ledger.results)
    for name in ("front", "hypervolume"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / f"{name}.svg").read_text()
    measured = [f"{name}{end}" for name in objectives for end in ("", "_low", "_high")]
    columns = {
        "points": ["trial", "mixing_ratio", *measured, "n_images", "on_front"],
        "hypervolume": ["trial", "forward_images", "elapsed_s", "hypervolume"],
    }
    n_rows = {"points": len(ledger.results.points()), "hypervolume": n_trials}
    for name, names in columns.items():
        head, *rows = (folder / f"{name}.csv").read_text().splitlines()
        assert head.split(",") == names
        assert len(rows) == n_rows[name]
