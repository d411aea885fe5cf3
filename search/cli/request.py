"""The options of a search, and the request that they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generalist_core.config import TrainConfig
from generalist_core.validation import InvalidConfigError
from search.cli.option_groups import option, switch
from search.cli.options import LOCAL, FailureOptions, ResourceOptions
from search.config import (
    Floor,
    Limits,
    Resources,
    StopWhenDone,
    SuccessiveHalving,
    SweepConfig,
    WarmupConfig,
)
from spaces.lineages import has_lineages


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What is searched, how, and for how long."""

    space: str | None = option(
        "lineages (the default for a natural and a robust expert), full (for others), branches, "
        "mixing, experts, smoke, or FILE.py:FUNCTION (runs that file)",
        "SPACE",
    )
    trials: int | None = option("number of trainings; default 20, or as the budget allows", "N")
    budget: float | None = option("begin no trial after C forward images, such as 2e8", "C")
    sampler: str = option("tpe, nsga2, nsga3, gp or random; default tpe", "SAMPLER", "tpe")
    search_seed: int = option("seed of the sampler; default 0", "N", 0)
    time_budget: float | None = option("stop after S seconds", "S")
    repeats: int = option("train each configuration on the front again with R other seeds", "R", 0)
    storage: str | None = option("Optuna storage; default a journal in the output folder", "URL")
    at_least: tuple[str, ...] = option(
        "region of interest, such as natural=0.8; the hypervolume counts from there",
        "OBJECTIVE=X",
        (),
    )
    eta: float = option(
        "stop a trial early that is not in the best 1/ETA of its rung; default 3", "ETA", 3.0
    )
    no_early_stopping: bool = switch("train every trial to its end")
    warmups: str | None = option("share warm-ups with all sweeps that name this folder", "FOLDER")
    no_sharing: bool = switch("let every trial train its own warm-ups")
    warm_start: tuple[str, ...] = option(
        "first learn from the points of an earlier sweep's folder, or of a CSV file", "PATH", ()
    )
    deterministic: bool = switch(
        "find the same points whatever the timing: trials run in rounds, one per worker"
    )
    min_growth: float | None = option("with --within-cost: end the sweep early", "F")
    within_cost: float | None = option(
        "once the hypervolume grew by no more than the fraction F within C forward images", "C"
    )
    local: bool = switch(LOCAL)


def build_request(
    search: SearchOptions, base: TrainConfig, failures: FailureOptions, resources: ResourceOptions
) -> SweepConfig:
    """The SweepConfig that the options describe.

    Raises:
        InvalidConfigError: options that do not go together, or a value that cannot be used.
    """
    return SweepConfig(
        base=base,
        space=search.space or ("lineages" if has_lineages(base) else "full"),
        trials=20 if search.trials is None and search.budget is None else search.trials,
        budget=search.budget,
        sampler=search.sampler,
        seed=search.search_seed,
        resources=resources.over(Resources(), local=search.local),
        time_budget_s=search.time_budget,
        repeats=search.repeats,
        storage=search.storage,
        at_least=tuple(_floor(text) for text in search.at_least),
        stop_when=_stop_when(search.min_growth, search.within_cost),
        warm_start=search.warm_start,
        shares_warmups=not search.no_sharing,
        warmups=_store(search.warmups),
        early_stopping=None if search.no_early_stopping else SuccessiveHalving(eta=search.eta),
        limits=failures.over(Limits()),
        round_size=_round_size(resources.workers) if search.deterministic else None,
    )


def _floor(text: str) -> Floor:
    objective, _, value = text.partition("=")
    try:
        accuracy = float(value)
    except ValueError as error:
        raise InvalidConfigError(
            f"`--at-least` must be OBJECTIVE=X, but got {text!r}. Write it as natural=0.8."
        ) from error
    return Floor(objective=objective, accuracy=accuracy)


def _store(folder: str | None) -> WarmupConfig | None:
    return WarmupConfig(folder=str(Path(folder).absolute())) if folder else None


def _stop_when(growth: float | None, cost: float | None) -> StopWhenDone | None:
    if growth is None and cost is None:
        return None
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
