"""Random streams that depend only on what they are for, never on what was drawn before.

Order and augmentation of the data depend on (seed, epoch), an expert's noise on (seed, epoch,
expert): a run can stop at any epoch, and experts can train apart or together, with equal bits.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, by hashing; different purposes are independent."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device, seed: int, *purpose: str | int) -> torch.Generator:
    """A generator on `device`, seeded for one purpose."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *purpose))


class Noise(Protocol):
    """Where attacks draw from."""

    def uniform(self, like: Tensor, /) -> Tensor:
        """Uniform in [0, 1), of the shape, dtype and device of `like`."""
        ...

    def normal(self, like: Tensor, /) -> Tensor:
        """Standard normal, of the shape, dtype and device of `like`."""
        ...


class GeneratorNoise:
    """Noise from a torch generator."""

    def __init__(self, source: torch.Generator) -> None:
        self.source = source

    def uniform(self, like: Tensor, /) -> Tensor:
        return torch.rand(like.shape, generator=self.source, dtype=like.dtype, device=like.device)

    def normal(self, like: Tensor, /) -> Tensor:
        return torch.randn(like.shape, generator=self.source, dtype=like.dtype, device=like.device)


@contextlib.contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block (dropout draws there), restore them after."""
    if device.type == "cpu":
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            yield
    else:
        with torch.random.fork_rng([device], device_type=device.type), device:
            torch.default_generator.manual_seed(seed)
            torch.get_device_module(device).manual_seed(seed)
            yield
