"""Random streams that depend only on what they are for, never on what was drawn before.

The order and augmentation of the data depend on (seed, epoch), and an expert's noise on (seed,
epoch, expert). A run can therefore stop at any epoch, and experts can train apart or together, with
bit-equal results.
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
    """The random numbers that attacks draw."""

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
    """The rows of a batch's noise that belong to one part of the batch.

    All parts share `drawn`: the first part that asks draws for the whole batch, and the others,
    which must ask for the same in the same order, find their rows there.
    """

    def __init__(self, whole: Noise, rows: slice, n_images: int, drawn: list[Tensor]) -> None:
        self.whole = whole
        self.rows = rows
        self.n_images = n_images
        self.drawn = drawn
        self.n_asked = 0

    def uniform(self, like: Tensor, /) -> Tensor:
        return self._rows_of(self.whole.uniform, like)

    def normal(self, like: Tensor, /) -> Tensor:
        return self._rows_of(self.whole.normal, like)

    def _rows_of(self, draw: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
        if self.n_asked == len(self.drawn):
            self.drawn.append(draw(like[:1].expand(self.n_images, *like.shape[1:])))
        self.n_asked += 1
        return self.drawn[self.n_asked - 1][self.rows]


def noise_of_parts(noise: Noise, sizes: Sequence[int]) -> list[Noise]:
    """The noise of each part of a batch; together the parts draw what the whole batch would."""
    ends, drawn = list(accumulate(sizes)), list[Tensor]()
    rows = (slice(end - size, end) for size, end in zip(sizes, ends, strict=True))
    return [PartNoise(noise, of_part, ends[-1], drawn) for of_part in rows]


@contextlib.contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators (dropout uses them) inside the block, then restore them."""
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
