"""A finished sweep of two trials, for tests of what is made of sweeps."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from generalist_core.config import TrainConfig
from generalist_core.data import Dataset
from search.request import Sweep, SweepConfig, open_sweep
from search.resources import Resources
from search.sweep import sweep


def small_sweep(folder: Path, config: TrainConfig, data: Dataset | None = None) -> Sweep:
    """Two random trials of the space `smoke`, each trained to its end, without Ray."""
    request = SweepConfig(
        config=config,
        space="smoke",
        trials=2,
        sampler="random",
        shares_warmups=False,
        early_stopping=None,
        resources=Resources(local=True),
    )
    sweep(request, folder, data=data, console=Console(quiet=True))
    return open_sweep(folder)
