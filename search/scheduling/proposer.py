"""What to run next: the interface, and the plain way, in which the sampler suggests everything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from generalist_core.config import Ratio, TrainConfig
from generalist_core.config.mixing import vertex
from search.study.ledger import Ledger
from search.study.records import Proposal
from spaces import Space, base_suggestion, paper_suggestion

Suggestion = tuple[dict[str, Any], Ratio]
"""Parameters of a space, and the ratio to release there."""


class Proposer(ABC):
    """Asks the ledger for proposals. Its state follows from the ledger, which may be reopened."""

    def __init__(self, ledger: Ledger, space: Space, base: TrainConfig) -> None:
        self.ledger = ledger
        self.space = space
        self.base = base

    @abstractmethod
    def propose(self) -> Proposal:
        """The next trial.

        Raises:
            RejectedError: the space refuses the suggestion.
            ExhaustedError: nothing is left to propose, unless a running trial fails or completes.
        """

    @abstractmethod
    def first(self) -> list[Suggestion]:
        """What is tried before anything else."""

    def enqueue_first(self) -> None:
        """Enqueue what is tried first, without what was asked before."""
        for params, ratio in self.first()[self.ledger.results.n_asked :]:
            self.ledger.enqueue(params, ratio, len(self.base.experts))

    @abstractmethod
    def completed(self, trial: str) -> None:
        """Take in that a trial has released its points."""


class SamplingProposer(Proposer):
    """The sampler suggests all parameters of all trials."""

    def first(self) -> list[Suggestion]:
        """Adversarial training, the paper's settings and those of the base, without duplicates.

        Trainings that differ in the ratio of their release alone are duplicates.
        """
        different: list[Suggestion] = []
        for make in (adversarial_suggestion, paper_suggestion, base_suggestion):
            params, ratio = make(self.space, self.base)
            if params not in [known for known, _ in different]:
                different.append((params, ratio))
        return different

    def propose(self) -> Proposal:
        """The next trial."""
        return self.ledger.ask(self.space, self.base)

    def completed(self, trial: str) -> None:
        """Do nothing: the ledger tells the sampler."""


def adversarial_suggestion(space: Space, base: TrainConfig) -> Suggestion:
    """Plain adversarial training by the settings of `base`, as far as the space has it.

    The last expert has all the weight throughout, and the only sync comes before the last epoch.
    Its release at that ratio is the robust expert alone.
    """
    n_experts = len(base.experts)
    alone = vertex(n_experts - 1, n_experts)
    ratio = replace(base.mixing.ratio, values=(alone,) * len(base.mixing.ratio.values))
    sync = replace(base.sync, start_epoch=base.epochs - 1)
    wanted = replace(base, mixing=replace(base.mixing, ratio=ratio), sync=sync)
    return base_suggestion(space, wanted)[0], alone
