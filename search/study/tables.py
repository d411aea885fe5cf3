"""The results of a sweep as tables of pandas."""

from __future__ import annotations

import pandas as pd

from generalist_core.validation import require_one_of
from search.study.results import Results


def trials_table(results: Results) -> pd.DataFrame:
    """One row per trial, by its id, in the order of asking.

    The columns are `state`, `stopped_at` (the epoch of an early stop), `on_front` (the number of
    its points on the front), `best_OBJECTIVE`, the cost in `forward_images` and `seconds`, the
    `reason` of a failure, and each parameter. Empty cells are missing values.
    """
    on_front = [point.trial for point in results.front().points]
    best: dict[str, dict[str, float]] = {}
    for point in results.points():
        known = best.setdefault(point.trial, {})
        for name, accuracy in point.accuracies.items():
            known[f"best_{name}"] = max(accuracy, known.get(f"best_{name}", 0.0))
    rows: list[dict[str, object]] = [
        {
            "trial": record.trial,
            "state": record.state,
            "stopped_at": record.stopped_at,
            "on_front": on_front.count(record.trial),
            **{f"best_{name}": None for name in results.objectives},
            **best.get(record.trial, {}),
            **{name: record.cost.get(name) for name in ("forward_images", "seconds")},
            "reason": record.failure.reason if record.failure else None,
            **record.params,
        }
        for record in results.records()
    ]
    table = pd.DataFrame(rows, columns=None if rows else ["trial"])
    return table.set_index("trial").convert_dtypes()


def sorted_by(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows in ascending order of a column or of the index, descending with a `-` before it.

    Numbers are sorted by value and texts alphabetically; rows without a value come last.

    Raises:
        InvalidConfigError: there is no such column.
    """
    name, rows = column.removeprefix("-"), table.reset_index()
    require_one_of("sort", name, [str(known) for known in rows.columns])
    values = rows[name].dropna()
    numbers = pd.to_numeric(values, errors="coerce")
    keys = values.map(str) if numbers.isna().any() else numbers
    known = keys.sort_values(ascending=name == column, kind="stable").index
    return table.iloc[[*known, *rows.index.difference(known)]]


def points_table(results: Results) -> pd.DataFrame:
    """One row per operating point, by the id of its trial, in the order of asking.

    The columns are `mixing_ratio`, each objective with the ends `OBJECTIVE_low` and
    `OBJECTIVE_high` of its 95 % interval, `n_images`, and `on_front`.
    """
    on_front = {point.name for point in results.front().points}
    ends = [f"{name}{end}" for name in results.objectives for end in ("", "_low", "_high")]
    rows: list[list[object]] = []
    for point in results.points():
        accuracies = [(point.accuracies[n], *point.interval(n)) for n in results.objectives]
        numbers = [number for triple in accuracies for number in triple]
        is_on = point.name in on_front
        rows.append([point.trial, point.mixing_ratio, *numbers, point.n_images, is_on])
    columns = ["trial", "mixing_ratio", *ends, "n_images", "on_front"]
    table = pd.DataFrame(rows, columns=columns).set_index("trial")
    return table.astype({"on_front": bool})


def front_rows(results: Results) -> pd.DataFrame:
    """The rows of `points_table` that are on the front, in its order, without `on_front`."""
    table = points_table(results)
    on_front = table[table["on_front"]].drop(columns="on_front")
    return on_front.sort_values(list(results.objectives))


def history_table(results: Results) -> pd.DataFrame:
    """One row per trial that ended, in that order: the cost and the hypervolume after it."""
    columns = ["trial", "forward_images", "elapsed_s", "hypervolume"]
    table = pd.DataFrame(results.history(), columns=columns)
    return table.set_index("trial").round({"elapsed_s": 3})
