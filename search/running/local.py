"""A sweep without Ray: trials run one after another in the calling process, for debugging."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from search.interruption import do_nothing, on_interruption, raise_interrupted
from search.running.trial import with_release_ratio
from search.running.worker import Worker, has_metrics, report_end
from search.scheduling.searcher import Searcher
from search.study.failures import Failure, classify, is_of_folder
from search.study.folder import Sweep
from search.study.records import Proposal

Item = TypeVar("Item")

Result = TypeVar("Result")


def run_locally(searcher: Searcher, sweep: Sweep, *, raises: bool) -> None:
    """As `search.running.ray_tuner.run_on_ray`, but in this process, one trial after another.

    Only a signal ends an epoch that hangs; it leaves the trial for `resume`, and comes through only
    while a trial trains, so that each record is complete. With `raises` the first error of a trial
    ends the search and becomes the searcher's.
    """
    config = sweep.config
    worker = Worker(
        threads=config.resources.threads,
        data=sweep.custom.data,
        model=sweep.custom.model,
        warmups=config.store_in(sweep.folder),
        limits=config.limits,
        is_watched=False,
        raises=raises,
    )
    deadline = time.monotonic() + (config.time_budget_s or float("inf"))
    ends = contextlib.suppress(KeyboardInterrupt)
    with ends, searcher.aborting(), on_interruption(do_nothing):
        while time.monotonic() < deadline and (proposal := searcher.propose()) is not None:
            folder = sweep.files.trial(proposal.trial).root
            worker.begin(folder, with_release_ratio(proposal.config, proposal.mixing_ratio))
            _train(searcher, proposal, worker, deadline)
    worker.close()
    worker.spare.drop()


def _train(searcher: Searcher, proposal: Proposal, worker: Worker, deadline: float) -> None:
    """Train a trial until it ends, the time is up, or the search ends."""
    trial = proposal.trial
    while trial in searcher.running and searcher.error is None and time.monotonic() < deadline:
        with on_interruption(raise_interrupted):
            result = worker.step()
        if not (has_metrics(result) and searcher.report(trial, result)):
            report_end(searcher, trial, result)


@contextlib.contextmanager
def local_worker() -> Iterator[int]:
    """Yields 1, as this process is the only worker; restores its number of threads afterwards."""
    n_threads = torch.get_num_threads()
    try:
        yield 1
    finally:
        torch.set_num_threads(n_threads)


def map_locally(
    function: Callable[..., Result], items: Sequence[Item], **shared: object
) -> Iterator[tuple[Item, Result | Failure]]:
    """As `search.running.ray_cluster.map_on_ray`, but in this process, one item after another.

    Raises:
        OSError: a folder cannot be written.
        SweepFolderError: a folder is damaged.
    """
    for item in items:
        try:
            outcome: Result | Failure = function(item, **shared)
        except Exception as error:
            if is_of_folder(error):
                raise
            outcome = classify(error)
        yield item, outcome
