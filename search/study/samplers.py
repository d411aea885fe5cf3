"""Optuna's samplers by name, set up for several objectives and conditional parameters."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
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
"""A function from the name of a suggestion to the sampler that makes it."""


def _tpe(seed: int, n_startup: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=n_startup)


def _gp(seed: int, n_startup: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=n_startup, warn_independent_sampling=False)


N_PARENTS = 8
"""The population of NSGA. Until it is complete all is random: in most sweeps with Optuna's 50."""

BUILDERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": _tpe,
    "nsga2": lambda seed, _: NSGAIISampler(seed=seed, population_size=N_PARENTS),
    "nsga3": lambda seed, _: NSGAIIISampler(seed=seed, population_size=N_PARENTS),
    "gp": _gp,
    "random": lambda seed, _: RandomSampler(seed=seed),
    "grid": lambda seed, _: RandomSampler(seed=seed),  # `GridProposer` gives all parameters
}
"""For each sampler of `search.config.SAMPLERS`, its builder from seed and startup trials."""

N_STARTUP = 5
"""Observations before a model-based sampler models; in simulations 5 did better than 10 or 30."""

OBSERVATION_LIMITS: dict[type[BaseSampler], int] = {TPESampler: 250, GPSampler: 150}
"""How many observations a sampler can model in reasonable time; that of others hardly grows."""


def build_samplers(name: str, *, seed: int, n_startup: int) -> SamplerOf:
    """The sampler `name`, built anew for each suggestion from `seed` and the suggestion's name.

    So a suggestion depends on what was observed, not on how often the search was interrupted.
    Model-based samplers draw at random before they have `n_startup` observations.

    Raises:
        InvalidConfigError: the name is unknown.
    """
    require_one_of("sampler", name, BUILDERS)

    def sampler_of(suggestion: str) -> BaseSampler:
        with experimental():
            return BUILDERS[name](derive_seed(seed, "sampler", suggestion) % 2**32, n_startup)

    return sampler_of


def fixing(sampler: BaseSampler, params: Mapping[str, Any]) -> BaseSampler:
    """A sampler that gives `params` as they are, and suggests all other parameters."""
    with experimental():
        return PartialFixedSampler(dict(params), sampler)


@contextlib.contextmanager
def experimental() -> Iterator[None]:
    """Silence Optuna's warnings about experimental features, which the required version has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def moved(value: Any, distribution: BaseDistribution, sign: int) -> Any:
    """A number a quarter of itself above (sign 1) or below (-1), within its range; a choice as is.

    A whole number moves by 1 at least.
    """
    if isinstance(distribution, CategoricalDistribution):
        return value
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    change = abs(value) / 4
    if distribution.step:
        change = distribution.step * max(1, round(change / distribution.step))
    return min(max(value + sign * change, distribution.low), distribution.high)
