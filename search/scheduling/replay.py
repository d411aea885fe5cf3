"""Replay: whether the record of a sweep leads to the same suggestions again."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from search.scheduling.proposers import build_proposer
from search.study.folder import Sweep
from search.study.records import RejectedError
from spaces import Space


def replay(sweep: Sweep, space: Space) -> list[str]:
    """The trials whose suggestion is not made again from what the study says came before it.

    For each trial, a ledger in memory is brought to the state that the sweep's ledger had when the
    trial was asked, and is asked in its place. Two numbers that the study stores for every trial
    give this state: `asked_after`, how many trials had ended when it was asked, and `told_as`, how
    many had ended before it. If any trial is returned, the space, the code or a library is not that
    of the sweep.
    """
    data = functools.cache(lambda: sweep.custom.data or load_dataset(sweep.config.base.data))
    return [
        record.trial
        for record in sweep.results.records()
        if _asked_again(sweep, space, record.trial, data) != record.params
    ]


def _asked_again(
    sweep: Sweep, space: Space, trial: str, data: Callable[[], Dataset]
) -> Mapping[str, Any]:
    past, config = sweep.ledger.before(trial), sweep.config
    proposer = build_proposer(past, space, config, data)
    proposer.enqueue_first()
    with contextlib.suppress(RejectedError):
        proposer.propose()
    return past.results.records()[-1].params
