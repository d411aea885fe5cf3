"""Whether a sweep's record gives its suggestions again, whoever was faster then."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from search.scheduling.proposer import Proposer, enqueue_first
from search.study.folder import Sweep
from search.study.records import RejectedError
from spaces import Space


def replay(sweep: Sweep, space: Space) -> list[str]:
    """The trials whose suggestion is not made again by what the study says came before it.

    For each trial a ledger in memory is put where the sweep's stood when the trial was asked, and
    asked in its place. What stood where is told by two numbers that the study has of every trial:
    `asked_after`, how many had ended when it was asked, and `told_as`, as which it ended. Empty is
    good; else the space, the code or a library is not that of the sweep.
    """
    records = sweep.results.records()
    return [seen.trial for seen in records if _asked_again(sweep, space, seen.trial) != seen.params]


def _asked_again(sweep: Sweep, space: Space, trial: str) -> Mapping[str, Any]:
    past, base = sweep.ledger.before(trial), sweep.config.base
    enqueue_first(past, space, base)
    with contextlib.suppress(RejectedError):
        Proposer(past, space, base, sweep.config.branching).propose()
    return past.results.records()[-1].params
