"""Random streams that depend only on what they are for, never on what was drawn before.

Order and augmentation of the data depend on (seed, epoch), an expert's noise on (seed, epoch,
expert): a run can stop at any epoch, and experts can train apart or together, with equal bits.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
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

    def __init__(self, rng: torch.Generator) -> None:
        self.rng = rng

    def uniform(self, like: Tensor, /) -> Tensor:
        return torch.rand(like.shape, generator=self.rng, dtype=like.dtype, device=like.device)

    def normal(self, like: Tensor, /) -> Tensor:
        return torch.randn(like.shape, generator=self.rng, dtype=like.dtype, device=like.device)


class PartNoise:
    """The rows of a whole batch's noise that belong to one part of it.

    All parts share `drawn`: the first one to ask draws for the whole batch, the others, who ask for
    the same in the same order, find their rows there.
    """

    def __init__(self, whole: Noise, rows: slice, n_images: int, drawn: list[Tensor]) -> None:
        self.whole = whole
        self.rows = rows
        self.n_images = n_images
        self.drawn = drawn
        self.n_asked = 0

    def uniform(self, like: Tensor, /) -> Tensor:
        return self._own_rows(self.whole.uniform, like)

    def normal(self, like: Tensor, /) -> Tensor:
        return self._own_rows(self.whole.normal, like)

    def _own_rows(self, draw: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
        if self.n_asked == len(self.drawn):
            self.drawn.append(draw(like[:1].expand(self.n_images, *like.shape[1:])))
        self.n_asked += 1
        return self.drawn[self.n_asked - 1][self.rows]


def noise_of_parts(noise: Noise, sizes: Sequence[int]) -> list[Noise]:
    """The noise of each part of a batch, such that together they draw what the batch would."""
    ends, drawn = list(accumulate(sizes)), list[Tensor]()
    rows = (slice(end - size, end) for size, end in zip(sizes, ends, strict=True))
    return [PartNoise(noise, own, ends[-1], drawn) for own in rows]


@contextlib.contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block (dropout draws there), restore them after."""
    if device.type == "cpu":
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            yield
    else:
        module = torch.get_device_module(device)
        with torch.random.fork_rng([device], device_type=device.type), module.device(device):
            torch.default_generator.manual_seed(seed)
            module.manual_seed(seed)
            yield
