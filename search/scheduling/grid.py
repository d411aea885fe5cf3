"""Every configuration of a small space once, in a fixed order: the sampler `grid`."""

from __future__ import annotations

from generalist_core.config import TrainConfig
from search.scheduling.proposer import Proposer, Suggestion
from search.study.ledger import Ledger
from search.study.records import ExhaustedError, Proposal
from search.wording import plural
from spaces import Space, base_suggestion
from spaces.grid import grid
from spaces.release_ratio import ratio_params


class GridProposer(Proposer):
    """Proposes the first configuration of `spaces.grid.grid` that was not tried.

    All are released at the ratios of the base, and at the one that the base ends with.
    """

    def __init__(self, ledger: Ledger, space: Space, base: TrainConfig) -> None:
        """Find the configurations.

        Raises:
            NoGridError: the space has infinitely many, or too many.
        """
        super().__init__(ledger, space, base)
        self.configurations = list(grid(space, base))
        self.released = ratio_params(base_suggestion(space, base)[1], len(base.experts))

    def first(self) -> list[Suggestion]:
        """Nothing: the order is that of the grid."""
        return []

    def propose(self) -> Proposal:
        """The next trial."""
        for params, config in self.configurations:
            if not self.ledger.results.was_tried(config):
                return self.ledger.ask(self.space, self.base, {**params, **self.released})
        n = plural(len(self.configurations), "configuration")
        raise ExhaustedError(f"all {n} of the grid were tried")

    def completed(self, trial: str) -> None:
        """Do nothing: the order does not depend on results."""
