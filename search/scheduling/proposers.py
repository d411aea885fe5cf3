"""Which proposer a request needs."""

from __future__ import annotations

from collections.abc import Callable

from generalist_core.config import TrainConfig
from generalist_core.data.splits import Dataset
from generalist_core.training.cost import evaluation_cost
from generalist_core.validation import InvalidConfigError
from search.config import SweepConfig
from search.scheduling.grid import GridProposer
from search.scheduling.lineages import LineageProposer
from search.scheduling.population import PopulationProposer
from search.scheduling.proposer import Proposer, SamplingProposer
from search.study.ledger import Ledger
from spaces import Space, base_suggestion
from spaces.lineages import LENGTH


def has_lineages(space: Space, base: TrainConfig) -> bool:
    """Whether a space asks for the length of a branch."""
    return LENGTH in base_suggestion(space, base)[0]


def require_lineages(config: SweepConfig, space: Space) -> None:
    """Check that a request for a population has lineages, which are its members.

    Raises:
        InvalidConfigError: it has none.
    """
    is_grid = config.sampler == "grid"
    if config.population is not None and (is_grid or not has_lineages(space, config.base)):
        what = "--sampler grid" if is_grid else f"--space {config.space}"
        raise InvalidConfigError(
            f"A population must have lineages as its members, but got {what}. Search `lineages` or "
            "`branches` with another sampler, or leave the population out."
        )


def build_proposer(
    ledger: Ledger, space: Space, config: SweepConfig, data: Callable[[], Dataset]
) -> Proposer:
    """The proposer of a request in its space; only for lineages is the `data` called for.

    The sampler `grid` has its own, for any space. Raises as `require_lineages`.
    """
    require_lineages(config, space)
    base = config.base
    if config.sampler == "grid":
        return GridProposer(ledger, space, base)
    if not has_lineages(space, base):
        return SamplingProposer(ledger, space, base)
    images = data()
    n_judged = len(images.validation)
    n_images = min(base.evaluation.n_images or n_judged, n_judged)
    cost = evaluation_cost(base.evaluation) * n_images / len(images.train)
    if config.population is not None:
        return PopulationProposer(
            ledger, space, base, config.population, point_cost=cost, seed=config.seed
        )
    return LineageProposer(ledger, space, base, config.growing, cost)
