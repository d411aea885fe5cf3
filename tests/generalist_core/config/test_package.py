"""The public names of the configuration, and what all its classes have in common."""

from __future__ import annotations

import dataclasses
import inspect

from generalist_core import config as config_module
from generalist_core.config import schedules


def test_configurations_are_frozen_and_take_only_names() -> None:
    classes = {
        kind
        for module in (config_module, schedules)
        for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
    }
    assert len(classes) > 20
    for kind in classes:
        assert kind.__dataclass_params__.frozen, kind
        assert all(field.kw_only for field in dataclasses.fields(kind)), kind


def test_all_names_everything_public() -> None:
    assert len(set(config_module.__all__)) == len(config_module.__all__)
    assert all(hasattr(config_module, name) for name in config_module.__all__)
    kinds = inspect.getmembers(config_module, dataclasses.is_dataclass)
    assert {name for name, _ in kinds} <= set(config_module.__all__)
