"""Random streams that depend only on their purpose."""

from __future__ import annotations

import itertools

import pytest
import torch

from generalist_core.randomness import (
    GeneratorNoise,
    derive_seed,
    generator,
    global_seed,
    noise_of_parts,
)

CPU = torch.device("cpu")


def test_each_purpose_has_its_own_seed() -> None:
    purposes = [
        (seed, *rest)
        for seed in range(20)
        for rest in [(), ("a",), ("a", 1), ("a", "1"), ("a", 11), ("a", 1, 1), (1, "a"), ("a1",)]
    ]
    seeds = [derive_seed(*purpose) for purpose in purposes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_on_every_machine() -> None:
    """Golden: another value would silently change every published result."""
    assert derive_seed(0, "init") == 1749912909633406932


def test_a_stream_does_not_depend_on_what_was_drawn_elsewhere() -> None:
    first = torch.rand(5, generator=generator(CPU, 0, "noise", 3))
    torch.rand(7, generator=generator(CPU, 0, "noise", 2))
    torch.rand(3)
    assert torch.equal(torch.rand(5, generator=generator(CPU, 0, "noise", 3)), first)


def test_streams_differ_by_seed_and_purpose() -> None:
    streams = [
        torch.rand(5, generator=generator(CPU, *purpose))
        for purpose in [(0, "noise", 3), (1, "noise", 3), (0, "noise", 4), (0, "data", 3)]
    ]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(streams, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_form_of_its_model_and_leaves_the_global_state(dtype: torch.dtype) -> None:
    state, like = torch.get_rng_state(), torch.zeros(300, 4, dtype=dtype)
    noise = GeneratorNoise(generator(CPU, 0))
    uniform, normal = noise.uniform(like), noise.normal(like)
    assert uniform.shape == normal.shape == like.shape
    assert uniform.dtype == normal.dtype == dtype
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.05)
    assert normal.mean().item() == pytest.approx(0, abs=0.1)
    assert normal.std().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_global_seed_ends_with_its_block() -> None:
    state = torch.get_rng_state()
    with global_seed(3, CPU):
        drawn = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_a_global_seed_ends_with_its_block_even_after_an_error() -> None:
    state = torch.get_rng_state()

    def fail() -> None:
        with global_seed(3, CPU):
            raise ArithmeticError(torch.rand(4))

    with pytest.raises(ArithmeticError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)


def test_parts_of_a_batch_share_out_the_noise_of_the_whole() -> None:
    """The parts ask for the same in the same order, one after another."""
    x = torch.zeros(7, 1, 2, 2, dtype=torch.float64)
    whole = GeneratorNoise(generator(CPU, 0))
    expected = [whole.uniform(x), whole.normal(x[:, :, :1, :1])]
    parts = noise_of_parts(GeneratorNoise(generator(CPU, 0)), [3, 3, 1])
    drawn = [
        (part.uniform(rows), part.normal(rows[:, :, :1, :1]))
        for part, rows in zip(parts, x.split(3), strict=True)
    ]
    for of_parts, of_whole in zip(zip(*drawn, strict=True), expected, strict=True):
        assert torch.equal(torch.cat(of_parts), of_whole)
