"""The sweep: many Generalist trainings on Ray, sampled by Optuna toward the Pareto front."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.api.explain import explain
    from search.api.export import export, load_export
    from search.api.sweep import resume, sweep
    from search.api.train import Trained, train
    from search.api.verify import verify
    from search.config import (
        Branching,
        Floor,
        Halving,
        Limits,
        Resources,
        StopWhenDone,
        SweepConfig,
        VerifyConfig,
        WarmupConfig,
    )
    from search.errors import SweepFolderError, SweepInterruptedError
    from search.front.front import Front
    from search.front.pick import Pick, pick
    from search.front.points import FrontPoint
    from search.study.folder import Sweep, open_sweep

_HOME = {
    "Branching": "proposer",
    "Floor": "records",
    "Front": "front",
    "FrontPoint": "front",
    "Halving": "early_stopping",
    "Limits": "limits",
    "Pick": "pick",
    "Resources": "resources",
    "StopWhenDone": "stopping_when_done",
    "Sweep": "request",
    "SweepConfig": "request",
    "SweepFolderError": "errors",
    "SweepInterruptedError": "errors",
    "Trained": "train",
    "VerifyConfig": "verify",
    "WarmupConfig": "warmups",
    "explain": "explain",
    "export": "export",
    "load_export": "export",
    "open_sweep": "request",
    "pick": "pick",
    "resume": "sweep",
    "sweep": "sweep",
    "train": "train",
    "verify": "verify",
}

__all__ = [
    "Branching",
    "Floor",
    "Front",
    "FrontPoint",
    "Halving",
    "Limits",
    "Pick",
    "Resources",
    "StopWhenDone",
    "Sweep",
    "SweepConfig",
    "SweepFolderError",
    "SweepInterruptedError",
    "Trained",
    "VerifyConfig",
    "WarmupConfig",
    "explain",
    "export",
    "load_export",
    "open_sweep",
    "pick",
    "resume",
    "sweep",
    "train",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import on first use: the command line's help must not wait for torch and Ray."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


class _Package(ModuleType):
    """Keeps `search.sweep` the function, though Python would bind the file of that name there."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
