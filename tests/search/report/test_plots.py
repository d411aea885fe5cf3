"""The plots for print, and the numbers in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from generalist_core.config import Ratio
from generalist_core.config.mixing import GLOBAL
from generalist_core.training.evaluator import OperatingPoint
from search.report.plots import release_plot, write_plots
from tests.helpers.reports import THREE, TWO, ledger_of


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [TWO, THREE])
@pytest.mark.parametrize("n_trials", [0, 1, 5])
def test_plots_for_print_are_written(
    tmp_path: Path, n_trials: int, objectives: tuple[str, ...]
) -> None:
    ledger = ledger_of(n_trials, objectives, with_global=True)
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
    assert (folder / "points.csv").read_text().count(",global,") == n_trials


@pytest.mark.parametrize("ratios", [(1.0, 0.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))])
def test_the_global_learner_is_a_line_across_the_release_curve(ratios: tuple[Ratio, ...]) -> None:
    released = [
        OperatingPoint(
            mixing_ratio=ratio, accuracies={"natural": 0.5 + 0.1 * n}, n_images=100, epoch=1
        )
        for n, ratio in enumerate((GLOBAL, *ratios))
    ]
    (axes,) = release_plot(released).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["natural, global learner"] == [50, 50]
    curves = [line for line in axes.get_lines() if len(line.get_ydata()) == len(ratios)]
    assert [70.0, 60.0] in [[round(y, 6) for y in line.get_ydata()] for line in curves]
