"""The options of a search, and the request that they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from generalist_core.config import TrainConfig
from generalist_core.validation import InvalidConfigError
from search.cli.option_groups import given, option
from search.cli.options import LOCAL, FailureOptions, ResourceOptions
from search.config import (
    Floor,
    Population,
    StopWhenDone,
    SuccessiveHalving,
    SweepConfig,
    WarmupConfig,
)
from spaces.lineages import fits_lineages


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What is searched, how, and for how long."""

    space: str | None = option(
        "lineages (the default if an expert is robust), full, branches, "
        "mixing, experts, smoke, or FILE.py:FUNCTION (runs that file)",
        "SPACE",
    )
    trials: int | None = option("number of trainings; default 20, or as the budget allows", "N")
    budget: float | None = option("begin no trial after C forward images, such as 2e8", "C")
    sampler: str | None = option(
        "tpe (default), nsga2, nsga3, gp, random, or grid: all configurations of a small space",
        "SAMPLER",
    )
    strategy: Literal["growing", "population"] | None = option(
        "how lineages are trained: the best grow (growing, the default), or as a population, in "
        "which the worst take over the best and explore from there"
    )
    search_seed: int | None = option("seed of the sampler; default 0", "N")
    time_budget: float | None = option("stop after S seconds", "S")
    repeats: int | None = option(
        "train each configuration on the front again with R other seeds", "R"
    )
    storage: str | None = option("Optuna storage; default a journal in the output folder", "URL")
    at_least: tuple[str, ...] = option(
        "region of interest, such as natural=0.8; the hypervolume counts from there",
        "OBJECTIVE=X",
        (),
    )
    eta: float | None = option(
        "stop a trial early that is not in the best 1/ETA of its rung; default 3", "ETA"
    )
    early_stopping: bool | None = option(
        "stop weak trials early (default), or train every trial to its end",
        flag="--early-stopping/--no-early-stopping",
    )
    warmups: str | None = option("share warm-ups with all sweeps that name this folder", "FOLDER")
    sharing: bool | None = option(
        "share warm-ups (default), or let every trial train its own", flag="--sharing/--no-sharing"
    )
    warm_start: tuple[str, ...] = option(
        "first learn from the points of an earlier sweep's folder, or of a CSV file", "PATH", ()
    )
    deterministic: bool | None = option(
        "find the same points whatever the timing: trials run in rounds, one per worker",
        flag="--deterministic/--no-deterministic",
    )
    min_growth: float | None = option("with --within-cost: end the sweep early", "F")
    within_cost: float | None = option(
        "once the hypervolume grew by no more than the fraction F within C forward images", "C"
    )
    local: bool | None = option(LOCAL, flag="--local/--no-local")


def build_request(
    search: SearchOptions,
    base: TrainConfig,
    failures: FailureOptions,
    resources: ResourceOptions,
    *,
    before: SweepConfig | None = None,
) -> SweepConfig:
    """The SweepConfig that the options describe, or change in the one that a file holds.

    Raises:
        InvalidConfigError: options that do not go together, or a value that cannot be used.
    """
    request = before or SweepConfig(base=base)
    named = given(search)
    fields = ("space", "trials", "budget", "sampler", "repeats", "storage")
    changes = {name: named[name] for name in fields if name in named}
    changes |= {sets: named[name] for name, sets in RENAMED.items() if name in named}
    if before is None:
        changes.setdefault("space", "lineages" if fits_lineages(base) else "full")
        if search.budget is not None or search.sampler == "grid":
            changes.setdefault("trials", None)
    if search.strategy is not None:
        population = request.population or Population()
        changes["population"] = population if search.strategy == "population" else None
    if search.at_least:
        changes["at_least"] = tuple(_floor(text) for text in search.at_least)
    if search.warm_start:
        changes["warm_start"] = search.warm_start
    if search.warmups is not None:
        changes["warmups"] = WarmupConfig(folder=str(Path(search.warmups).absolute()))
    if not (search.min_growth is None and search.within_cost is None):
        changes["stop_when"] = _stop_when(search.min_growth, search.within_cost)
    if search.deterministic is not None:
        workers = resources.workers or request.resources.workers
        changes["round_size"] = _round_size(workers) if search.deterministic else None
    return replace(
        request,
        base=base,
        resources=resources.over(request.resources, local=search.local),
        limits=failures.over(request.limits),
        early_stopping=_early_stopping(search, request.early_stopping),
        **changes,
    )


RENAMED = {
    "search_seed": "seed",
    "time_budget": "time_budget_s",
    "sharing": "shares_warmups",
}
"""Options that have another name than the field of the request which they set."""


def _early_stopping(
    search: SearchOptions, before: SuccessiveHalving | None
) -> SuccessiveHalving | None:
    if search.early_stopping is False:
        return None
    if search.eta is not None:
        return replace(before or SuccessiveHalving(), eta=search.eta)
    return (before or SuccessiveHalving()) if search.early_stopping else before


def _floor(text: str) -> Floor:
    objective, _, value = text.partition("=")
    try:
        accuracy = float(value)
    except ValueError as error:
        raise InvalidConfigError(
            f"`--at-least` must be OBJECTIVE=X, but got {text!r}. Write it as natural=0.8."
        ) from error
    return Floor(objective=objective, accuracy=accuracy)


def _stop_when(growth: float | None, cost: float | None) -> StopWhenDone:
    if growth is None or cost is None:
        raise InvalidConfigError(
            f"`--min-growth` and `--within-cost` must be given together, but got {growth} and "
            f"{cost}."
        )
    return StopWhenDone(min_growth=growth, within_cost=cost)


def _round_size(workers: int | None) -> int:
    if workers is None:
        raise InvalidConfigError(
            "`--workers` must be given with `--deterministic`, but got none. The points depend on "
            "their number."
        )
    return workers
