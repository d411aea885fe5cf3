"""The Generalist method: experts, their mixture, and how both are judged."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generalist_core.config import TrainConfig
    from generalist_core.config.codec import from_json, load_config, to_json
    from generalist_core.config.presets import official, paper, short
    from generalist_core.data.datasets import load_dataset, make_dataset
    from generalist_core.data.splits import Dataset, Split
    from generalist_core.training.evaluator import OperatingPoint
    from generalist_core.training.trainer import DivergedError, GeneralistTrainer
    from generalist_core.validation import InvalidConfigError

_HOME = {
    "Dataset": "data",
    "DivergedError": "trainer",
    "GeneralistTrainer": "trainer",
    "InvalidConfigError": "validation",
    "OperatingPoint": "evaluation",
    "Split": "data",
    "TrainConfig": "config",
    "from_json": "codec",
    "load_config": "codec",
    "load_dataset": "datasets",
    "make_dataset": "datasets",
    "official": "presets",
    "paper": "presets",
    "short": "presets",
    "to_json": "codec",
}

__all__ = [
    "Dataset",
    "DivergedError",
    "GeneralistTrainer",
    "InvalidConfigError",
    "OperatingPoint",
    "Split",
    "TrainConfig",
    "from_json",
    "load_config",
    "load_dataset",
    "make_dataset",
    "official",
    "paper",
    "short",
    "to_json",
]


def __getattr__(name: str) -> object:
    """Import on first use: configurations and spaces must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
