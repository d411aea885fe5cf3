"""Which values of data and model configurations are refused."""

from __future__ import annotations

from generalist_core.config import DataConfig, ModelConfig
from tests.helpers.refused import Broken, refusal_of

BROKEN: list[Broken] = [
    (DataConfig, {"n_validation": 0}, "n_validation > 0", "n_validation=0"),
    (DataConfig, {"n_train": 0}, "n_train > 0", "n_train=0"),
    (DataConfig, {"image_size": -1}, "image_size > 0", "image_size=-1"),
    (DataConfig, {"crop_padding": -4}, "crop_padding >= 0", "crop_padding=-4"),
    (ModelConfig, {"width": 0}, "width > 0", "width=0"),
    (ModelConfig, {"mean": (0.5,)}, "the same length", "std=None"),
    (ModelConfig, {"mean": (0.5,), "std": (1.0, 2.0)}, "the same length", "(1.0, 2.0)"),
    (ModelConfig, {"mean": (0.5,), "std": (0.0,)}, "min(std) > 0", "std=(0.0,)"),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)
