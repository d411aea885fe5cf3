"""The study as tables of pandas: a row a trial, or a row an operating point."""

from __future__ import annotations

import pandas as pd

from search.study.results import Results


def trials_table(results: Results) -> pd.DataFrame:
    """One row an asked trial, by its name, in the order of asking.

    Columns: `state`, `on_front` (how many of its points are), `best_OBJECTIVE`, the cost in
    `forward_images` and `seconds`, `reason` of a failure, and each parameter; empty cells are NaN.
    """
    points, on_front = results.points(), [point.trial for point in results.front().points]
    best: dict[str, dict[str, float]] = {}
    for point in points:
        own = best.setdefault(point.trial, {})
        for name, accuracy in point.accuracies.items():
            own[f"best_{name}"] = max(accuracy, own.get(f"best_{name}", 0.0))
    rows: list[dict[str, object]] = [
        {
            "trial": record.trial,
            "state": record.state,
            "on_front": on_front.count(record.trial),
            **{f"best_{name}": None for name in results.objectives},
            **best.get(record.trial, {}),
            **{name: record.cost.get(name) for name in ("forward_images", "seconds")},
            "reason": record.failure.reason if record.failure else None,
            **record.params,
        }
        for record in results.records()
    ]
    return _by_trial(rows)


def points_table(results: Results) -> pd.DataFrame:
    """One row an operating point: mixing ratio, accuracies with 95 % intervals, `on_front`."""
    on_front = {point.name for point in results.front().points}
    rows: list[dict[str, object]] = []
    for point in results.points():
        row: dict[str, object] = {"trial": point.trial, "mixing_ratio": point.mixing_ratio}
        for name, accuracy in point.accuracies.items():
            low, high = point.interval(name)
            row |= {name: accuracy, f"{name}_low": low, f"{name}_high": high}
        rows.append({**row, "n_images": point.n_images, "on_front": point.name in on_front})
    measured = [f"{name}{end}" for name in results.objectives for end in ("", "_low", "_high")]
    return _by_trial(rows, ["trial", "mixing_ratio", *measured, "n_images", "on_front"])


def history_table(results: Results) -> pd.DataFrame:
    """One row per trial that ended, in that order: the cost and the hypervolume after it."""
    columns = ["trial", "forward_images", "elapsed_s", "hypervolume"]
    table = pd.DataFrame(results.history(), columns=columns)
    return table.set_index("trial").round({"elapsed_s": 3})


def _by_trial(rows: list[dict[str, object]], columns: list[str] | None = None) -> pd.DataFrame:
    """The rows by their trial, and missing numbers as such."""
    table = pd.DataFrame(rows, columns=columns if columns or rows else ["trial"])
    return table.set_index("trial").convert_dtypes()
