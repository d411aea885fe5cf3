"""Which device a run uses; the one file that names an accelerator."""

from __future__ import annotations

import torch

from generalist_core.validation import InvalidConfigError


def resolve_device(name: str) -> torch.device:
    """The device that a configuration asks for; `auto` is the accelerator if there is one.

    Raises:
        InvalidConfigError: no such device on this machine.
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
