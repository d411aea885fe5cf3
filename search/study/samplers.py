"""Optuna's samplers by name, set up for several objectives and conditional parameters."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optuna
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    PartialFixedSampler,
    RandomSampler,
    TPESampler,
)

from generalist_core.randomness import derive_seed
from generalist_core.validation import require_one_of

SamplerOf = Callable[[str], BaseSampler]
"""The sampler of one suggestion, by its name."""


def _tpe(seed: int, n_startup: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=n_startup)


def _gp(seed: int, n_startup: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=n_startup, warn_independent_sampling=False)


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": _tpe,
    "nsga2": lambda seed, _: NSGAIISampler(seed=seed),
    "nsga3": lambda seed, _: NSGAIIISampler(seed=seed),
    "gp": _gp,
    "random": lambda seed, _: RandomSampler(seed=seed),
}

N_STARTUP = 5
"""Observations before a model-based sampler models; in simulations, fewer than 10 or 30 paid."""

OBSERVATION_LIMITS: dict[type[BaseSampler], int] = {TPESampler: 250, GPSampler: 150}
"""How many observations a sampler can model in time; the others' time hardly grows."""


def build_samplers(name: str, *, seed: int, n_startup: int) -> SamplerOf:
    """The sampler `name`, new for each suggestion, its randomness given by `seed` and that.

    So a suggestion depends on what was observed, not on how often the search was interrupted. The
    model-based samplers draw at random until `n_startup` observations.

    Raises:
        InvalidConfigError: unknown name.
    """
    require_one_of("sampler", name, SAMPLERS)

    def sampler_of(suggestion: str) -> BaseSampler:
        with experimental():
            return SAMPLERS[name](derive_seed(seed, "sampler", suggestion) % 2**32, n_startup)

    return sampler_of


def fixing(sampler: BaseSampler, params: Mapping[str, Any]) -> BaseSampler:
    """The sampler for what is not in `params`."""
    with experimental():
        return PartialFixedSampler(dict(params), sampler)


@contextlib.contextmanager
def experimental() -> Iterator[None]:
    """Optuna warns of parts that may still change; the version that is required has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
