"""The forms in which people save the weights of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

SAVED: dict[str, Callable[[nn.Module], Any]] = {
    "plain": lambda model: model.state_dict(),
    "DataParallel": lambda model: nn.DataParallel(model).state_dict(),
    "AveragedModel": lambda model: AveragedModel(model).state_dict(),
    "compiled": lambda model: torch.compile(model).state_dict(),
    "averaged and compiled": lambda model: AveragedModel(torch.compile(model)).state_dict(),
    "checkpoint": lambda model: {"state_dict": model.state_dict(), "epoch": 3},
    "checkpoint of a DataParallel": lambda model: {
        "model": nn.DataParallel(model).state_dict(),
        "optimizer": {"lr": 0.1},
    },
}
