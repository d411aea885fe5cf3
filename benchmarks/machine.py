"""The hardware that figures are measured on, and the clocks that measure them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

DENSE_BFLOAT16 = {"H200": 989e12, "H100 80GB HBM3": 989e12, "A100": 312e12}
"""Floating-point operations per second, without sparsity, from the vendors' data sheets."""


def environment(device: torch.device) -> dict[str, Any]:
    """The hardware, the clock, and the versions of the software."""
    return {
        "hardware": device_name(device),
        "threads": torch.get_num_threads(),
        "clock": "processor" if clock(device) is time.process_time else "wall",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def device_name(device: torch.device) -> str:
    """The name of the GPU or of the processor."""
    if device.type != "cpu":
        return str(torch.get_device_module(device).get_device_name(device))
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def dense_rate(device: torch.device) -> float | None:
    """The dense bfloat16 rate of the card; None if it is not known."""
    name = device_name(device)
    return next((rate for card, rate in DENSE_BFLOAT16.items() if card in name), None)


def clock(device: torch.device) -> Callable[[], float]:
    """Processor time for a single thread on a CPU, free of other processes; else wall time."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """The seconds that one call takes, including all work that it starts, by `clock`."""
    now = clock(device)
    started = now()
    function()
    torch.get_device_module(device).synchronize()
    return now() - started


def peak_mib(function: Callable[[], object], device: torch.device) -> float | None:
    """The most memory, in MiB, that one call adds on a GPU; None on a CPU."""
    if device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    module.synchronize()
    before = module.memory_allocated(device)
    module.reset_peak_memory_stats(device)
    function()
    module.synchronize()
    return float(module.max_memory_allocated(device) - before) / 2**20
