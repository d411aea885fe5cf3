"""Searches compared by their fronts within the cost of the plain search: a table and a picture.

A result has the `cost` of a search and its `history`: after each trial, the cost so far and the
front's value by each of `MEASURES`. Results are kept by task, space, method and seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

MEASURES = ("hypervolume", "trade_off")
ON_THE_WAY = (0.02, 0.05, 0.1)
"""Fractions of plain's cost at which the table shows both measures too."""

Results = Mapping[str, Mapping[str, Any]]


def key_of(task: str, space: str, method: str, seed: int) -> str:
    """The name of a search in the results."""
    return f"{task}/{space}/{method}/{seed}"


def fraction_of_cost(results: Results, key: str, measure: str) -> float:
    """The fraction of plain's cost at which plain's final value is reached; infinity if it is not.

    The trial that ends a search may cost more than was left; its result does not count then.
    """
    plain = results[_plain(key)]
    goal, budget = plain["history"][-1][measure], plain["cost"]
    costs = [row["cost"] for row in results[key]["history"] if row[measure] >= goal]
    return min((cost for cost in costs if cost <= budget), default=float("inf")) / budget


def table(results: Results, task: str, space: str, methods: Sequence[str]) -> Iterator[str]:
    """Final values, mean and deviation over seeds; median fractions of cost; values on the way."""
    yield "| method | seeds | hv | area | cost to plain's: hv | area | on the way: hv | area |"
    yield "|---|---|---|---|---|---|---|---|"
    for method in methods:
        keys = _keys(results, task, space, method)
        if not keys:
            continue
        cells = [method, str(len(keys))]
        for measure in MEASURES:
            final = [_reached(results, key, measure, (1.0,))[0] for key in keys]
            digits = 3 if measure == "hypervolume" else 4
            spread = f" ± {statistics.stdev(final):.{digits}f}" if len(final) > 1 else ""
            cells.append(f"{statistics.fmean(final):.{digits}f}{spread}")
        for measure in MEASURES:
            fractions = [fraction_of_cost(results, key, measure) for key in keys]
            cells.append(f"{statistics.median(fractions):.2f}")
        for measure in MEASURES:
            reached = [_reached(results, key, measure, ON_THE_WAY) for key in keys]
            cells.append(", ".join(f"{value:.3f}" for value in np.mean(reached, 0)))
        yield f"| {' | '.join(cells)} |"


def plot(results: Results, path: Path, methods: Sequence[str]) -> None:
    """Both measures against cost, mean and deviation over seeds, one row per task and space."""
    groups = sorted({tuple(key.split("/")[:2]) for key in results})
    figure, axes = plt.subplots(
        len(groups), len(MEASURES), figsize=(9, 3.2 * len(groups)), squeeze=False
    )
    fractions = np.linspace(0, 1, 101)
    for row, (task, space) in zip(axes, groups, strict=True):
        for axis, measure in zip(row, MEASURES, strict=True):
            for method in methods:
                keys = _keys(results, task, space, method)
                if not keys:
                    continue
                runs = np.array([_reached(results, key, measure, fractions) for key in keys])
                color = f"C{methods.index(method)}"
                label = f"{method} ({len(keys)} seeds)"
                axis.plot(fractions, runs.mean(0), label=label, color=color)
                low, high = runs.mean(0) - runs.std(0), runs.mean(0) + runs.std(0)
                axis.fill_between(fractions, low, high, alpha=0.15, color=color)
            axis.set(title=f"{task}, {space}", xlabel="fraction of plain's cost")
            axis.set_ylabel(measure.replace("_", "-") + ", test images")
        row[0].legend(fontsize="small", loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _reached(results: Results, key: str, measure: str, fractions: Iterable[float]) -> list[float]:
    """The front's value at fractions of plain's cost with the same seed, or 0."""
    budget = results[_plain(key)]["cost"]
    history = results[key]["history"]
    return [
        next((h[measure] for h in reversed(history) if h["cost"] <= fraction * budget), 0.0)
        for fraction in fractions
    ]


def _plain(key: str) -> str:
    """The key of the search that sets the budget: plain, with the same seed."""
    task, space, _, seed = key.split("/")
    return key_of(task, space, "plain", int(seed))


def _keys(results: Results, task: str, space: str, method: str) -> list[str]:
    """The keys of all seeds."""
    return [key for key in results if key.rsplit("/", 1)[0] == f"{task}/{space}/{method}"]
