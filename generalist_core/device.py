"""The device of a run and its floating-point precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from generalist_core.config import Precision
from generalist_core.validation import InvalidConfigError

AMPERE = (8, 0)
"""The first generation of GPUs with TF32 and bfloat16, by CUDA's compute capability."""


def resolve_device(name: str) -> torch.device:
    """The device that a configuration asks for; `auto` is the accelerator if there is one.

    Raises:
        InvalidConfigError: there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidConfigError(
            f"`device` must be auto, cpu or cuda[:N], but got {name!r}."
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidConfigError(f"`device` must be auto, cpu or cuda[:N], but got {name!r}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidConfigError(
            f"`device` must exist, but got {name!r} on a machine with {torch.cuda.device_count()} "
            "GPUs. Use --device cpu or auto."
        )
    return device


def limit_gpu_memory(fraction: float) -> None:
    """Keep this process within a fraction in (0, 1) of each GPU's memory; others mean no limit.

    What does not fit raises torch.OutOfMemoryError here, and not in the processes beside this one.
    """
    if 0 < fraction < 1:
        for index in range(torch.cuda.device_count()):
            torch.cuda.set_per_process_memory_fraction(fraction, index)


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision on a device: `auto` is bfloat16 on GPUs that have it, and float32 elsewhere."""
    if precision != "auto":
        return precision
    has_it = device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE
    return "bfloat16" if has_it else "float32"


@contextlib.contextmanager
def training_precision(precision: Precision) -> Iterator[None]:
    """Compute float32 inside the block as TF32 if `precision` is `tfloat32`, in full otherwise.

    With `tfloat32-convolutions` only convolutions are TF32. TF32 needs a GPU that supports it. With
    `tfloat32` and `bfloat16` a GPU also tries out which convolution algorithms are the fastest.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before, allowed = matmul.allow_tf32, precision == "tfloat32"
    convolutions = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark or precision in ("tfloat32", "bfloat16"),
        deterministic=cudnn.deterministic,
        allow_tf32=precision in ("tfloat32", "tfloat32-convolutions"),
    )
    matmul.allow_tf32 = allowed
    try:
        with convolutions:
            yield
    finally:
        matmul.allow_tf32 = before


@contextlib.contextmanager
def full_precision(device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Compute float32 in full, or in TF32, inside the block, without autocast.

    Convolutions are deterministic, and never searched for the fastest: judging meets many shapes of
    batches, once each.
    """
    before = torch.get_float32_matmul_precision()
    enabled = torch.backends.cudnn.enabled
    convolutions = torch.backends.cudnn.flags(
        enabled=enabled, benchmark=False, deterministic=True, allow_tf32=tf32
    )
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with convolutions, torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
