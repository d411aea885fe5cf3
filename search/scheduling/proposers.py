"""Which proposer a space and a sampler need."""

from __future__ import annotations

from collections.abc import Callable

from generalist_core.config import TrainConfig
from generalist_core.data.splits import Dataset
from generalist_core.training.cost import evaluation_cost
from search.config import Growing
from search.scheduling.grid import GridProposer
from search.scheduling.lineages import LineageProposer
from search.scheduling.proposer import Proposer, SamplingProposer
from search.study.ledger import Ledger
from spaces import Space, base_suggestion
from spaces.lineages import LENGTH


def has_lineages(space: Space, base: TrainConfig) -> bool:
    """Whether a space asks for the length of a branch."""
    return LENGTH in base_suggestion(space, base)[0]


def build_proposer(
    ledger: Ledger,
    space: Space,
    base: TrainConfig,
    growing: Growing,
    data: Callable[[], Dataset],
    *,
    sampler: str = "tpe",
) -> Proposer:
    """The proposer that the space is made for; only for lineages is the `data` called for.

    The sampler `grid` has its own, for any space.
    """
    if sampler == "grid":
        return GridProposer(ledger, space, base)
    if has_lineages(space, base):
        images = data()
        n_judged = len(images.validation)
        n_images = min(base.evaluation.n_images or n_judged, n_judged)
        cost = evaluation_cost(base.evaluation) * n_images / len(images.train)
        return LineageProposer(ledger, space, base, growing, cost)
    return SamplingProposer(ledger, space, base)
