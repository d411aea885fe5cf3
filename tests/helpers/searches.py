"""Searches on a small space, with a callback that notes what it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.training.evaluator import OperatingPoint
from search.scheduling.callbacks import Callback
from search.scheduling.proposer import SamplingProposer
from search.scheduling.searcher import Rules, Searcher
from search.study.failures import Failure
from search.study.records import Proposal
from search.study.results import Results
from spaces import SPACES, Space
from tests.helpers.ledgers import new_ledger

LAST = {"forward_images": 30.0, "reused_forward_images": 4.0, "total_seconds": 9.0}
"""The cost of a trial that has ended."""


class Noting(Callback):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def on_begun(self, proposal: Proposal) -> None:
        self.told.append(("begun", proposal.trial))

    def on_metrics(self, trial: str, _: Mapping[str, Any]) -> None:
        self.told.append(("metrics", trial))

    def on_completed(self, trial: str, _: Sequence[OperatingPoint], __: Results) -> None:
        self.told.append(("completed", trial))

    def on_failed(self, trial: str, _: Failure, __: Results) -> None:
        self.told.append(("failed", trial))

    def on_stopped(self, trial: str, epoch: int, __: Results) -> None:
        self.told.append((f"stopped after {epoch}", trial))

    def close(self) -> None:
        self.told.append(("closed", None))


def searcher(
    n_trials: int = 4, space: Space | None = None, sampler: str = "random", **others: Any
) -> Searcher:
    """A search on a small space; what is not an argument of `Searcher` is a rule."""
    names = {field.name for field in dataclasses.fields(Rules)}
    rules = Rules(**{name: others.pop(name) for name in names & set(others)})
    base = replace_at(short(), "evaluation.every_epochs", 1)
    proposer = SamplingProposer(new_ledger(sampler), space or SPACES["smoke"], base)
    return Searcher(proposer, n_trials=n_trials, callback=Noting(), rules=rules, **others)


def proposed(searching: Searcher) -> Proposal:
    """The next trial, of which there must be one."""
    proposal = searching.propose()
    assert proposal is not None
    return proposal


def epoch(number: int, cost: float = 10.0, **others: float) -> dict[str, float]:
    """The metrics of an epoch of two seconds, in co-training."""
    return {
        "epoch": number,
        "forward_images": cost,
        "reused_forward_images": 4.0,
        "seconds": 2.0,
        **others,
    }
