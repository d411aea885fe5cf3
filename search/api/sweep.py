"""A sweep: a configuration, a space and a budget in; trials on Ray; the front out."""

from __future__ import annotations

import contextlib
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from generalist_core.config.codec import to_dict
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory
from generalist_core.user_code import pinned, running_user_code
from generalist_core.validation import require
from search.config import CustomParts, Resources, SweepConfig
from search.errors import SweepFolderError, SweepInterruptedError
from search.files import create_folder
from search.folders import SweepFolder
from search.monitoring.console import Lines, shown, view_of
from search.monitoring.log import logged_to
from search.monitoring.tensorboard import Monitor
from search.report.write import write_files
from search.running.housekeeping import Housekeeping, remove_leftovers
from search.running.local import local_worker, run_locally
from search.running.preflight import check_that_it_can_start
from search.running.repeats import repeat_front
from search.running.trial import read_metrics
from search.scheduling.callbacks import Callback, Callbacks
from search.scheduling.early_stopping import Rungs
from search.scheduling.proposer import Proposer, enqueue_first
from search.scheduling.searcher import Rules, Searcher
from search.study.failures import is_of_storage
from search.study.folder import (
    JOURNAL,
    Sweep,
    custom_parts,
    open_ledger,
    open_sweep,
    read_request,
    require_custom_parts,
    write_request,
)
from search.study.records import Proposal
from search.study.storage import WRITE_ERRORS, mend_journal, open_storage
from search.study.trials import parameters_of
from search.study.warm_start import earlier_observations
from spaces import Space, base_suggestion, load_space, paper_suggestion
from spaces.parameters import parameters_of_space, with_seen

LOG = "log.txt"
"""What Ray and Optuna wrote, and all warnings."""

CHANGEABLE = ("trials", "time_budget_s", "resources", "limits", "stop_when")
"""What of a request may be another when the sweep goes on."""


def sweep(
    config: SweepConfig,
    folder: str | Path,
    *,
    space: Space | None = None,
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    console: Console | None = None,
    debug: bool = False,
) -> Sweep:
    """Run a sweep in a new folder and write its report.

    Args:
        config: the request; its `space` is but a name where `space` is given.
        folder: a new or empty folder; on a cluster of several machines one that all of them share.
        space: a search space as a function.
        data: the user's own images; by default those that the configuration names.
        model: the user's own `(n_classes, (c, h, w)) -> torch.nn.Module`.
        console: where progress is told; by default standard error.
        debug: show what Ray and Optuna write, which goes to `log.txt` in the folder else; a local
            sweep also raises the first error of a trial, and leaves the terminal to a debugger.

    Raises:
        InvalidConfigError: a setting that cannot work; found before any trial starts.
        SweepFolderError: the folder holds something already, or cannot be written.
        SweepInterruptedError: Ctrl-C ended it; the report of what there is has been written.
    """
    folder = Path(folder).absolute()
    config = replace(config, base=pinned(config.base))
    with running_user_code(f"space {config.space}"):
        space = space or load_space(config.space)
        for make in (paper_suggestion, base_suggestion):
            make(space, config.base)
    earlier = [
        seen for name in config.warm_start for seen in earlier_observations(Path(name), config)
    ]
    for seen in earlier:
        parameters_of(seen, space, config.base)
    check_that_it_can_start(config, data, model)
    if config.storage is not None:
        open_storage(config.storage, folder / JOURNAL)
    create_folder(folder)
    with _writing(folder), _alone(folder):
        study = f"{folder.name}-{uuid.uuid4().hex[:8]}"
        write_request(folder, config, study, custom_parts(data, model))
        ledger = open_ledger(folder, config, study, is_new=True)
        for seen in earlier:
            ledger.observe(seen, space, config.base)
        custom = CustomParts(space=space, data=data, model=model)
        found = Sweep(folder=folder, config=config, ledger=ledger, custom=custom)
        return _run(found, (), console or Console(stderr=True), debug=debug)


def resume(
    folder: str | Path,
    config: SweepConfig | None = None,
    *,
    space: Space | None = None,
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    console: Console | None = None,
    debug: bool = False,
) -> Sweep:
    """Go on with a sweep, however it ended, and write its report.

    Finished trials are kept; the others go on from their checkpoints under the same number.

    Args:
        folder: the sweep's.
        config: what is asked for now, by default as before without a time budget; it may differ
            in trials (in all), time budget (from now), resources, limits and `stop_when`.
        space: the space, if the sweep was given one as a function.
        data: the images, if the sweep was given its own.
        model: the factory of models, if the sweep was given its own.
        console: where progress is told; by default standard error.
        debug: show what Ray and Optuna write, which goes to `log.txt` in the folder else; a local
            sweep also raises the first error of a trial, and leaves the terminal to a debugger.

    Raises:
        InvalidConfigError: a part of the sweep's own is missing or another.
        SweepFolderError: no sweep there, a damaged file, or another process runs it.
        SweepInterruptedError: Ctrl-C ended it; the report of what there is has been written.
    """
    folder = Path(folder).absolute()
    old, study = read_request(folder)
    require_custom_parts(folder, data, model)
    config = config or replace(old, time_budget_s=None)
    law = f"only {', '.join(CHANGEABLE)} change"
    require(_unchangeable(config) == _unchangeable(old), law, "other settings than the sweep's")
    with running_user_code(f"space {config.space}"):
        custom = CustomParts(space=space or load_space(config.space), data=data, model=model)
    check_that_it_can_start(config, data, model)
    console = console or Console(stderr=True)
    with _writing(folder), _alone(folder):
        for proposal in open_sweep(folder).results.proposals():
            read_metrics(folder / "trials" / proposal.trial)
        if config.storage is None:
            mend_journal(folder / JOURNAL)
        ledger = open_ledger(folder, config, study)
        unfinished = ledger.resume()
        remove_leftovers(folder, ledger.results)
        if config != old:
            write_request(folder, config, study, custom_parts(data, model))
        done = ledger.results.counts().total
        console.print(
            f"{done} trials are done, {len(unfinished)} go on, {config.trials} are asked for",
            soft_wrap=True,
        )
        found = Sweep(folder=folder, config=config, ledger=ledger, custom=custom)
        return _run(found, unfinished, console, debug=debug)


def _run(found: Sweep, unfinished: Sequence[Proposal], console: Console, *, debug: bool) -> Sweep:
    """Search, repeat the front, and report."""
    folder, config, ledger, custom = found.folder, found.config, found.ledger, found.custom
    quiet = contextlib.nullcontext() if debug else logged_to(folder / LOG, console)
    view = (
        Lines(console)
        if debug
        else view_of(
            console, ledger.results, n_trials=config.trials, time_budget_s=config.time_budget_s
        )
    )
    run_trials, place = _place(config.resources, raises=debug)
    with quiet, shown(view), place as n_workers, _terminable():
        searcher = _searcher(found, unfinished, n_workers, view)
        run_trials(searcher, folder, config, custom)
        cut_short = searcher.close()
        if isinstance(searcher.error, OSError):
            raise SweepInterruptedError(_no_room(folder, searcher.error)) from searcher.error
        if config.repeats and not cut_short:
            repeat_front(
                folder, found.front, config, data=custom.data, model=custom.model, console=console
            )
    write_files(folder, ledger.results)
    if searcher.error is not None:
        raise searcher.error
    if cut_short and config.time_budget_s is None:
        raise SweepInterruptedError(f"Interrupted. Go on: generalist-search resume {folder}")
    return found


def _place(
    resources: Resources, *, raises: bool
) -> tuple[Callable[..., None], AbstractContextManager[int]]:
    """What runs trials, and where: Ray is imported only if it runs them."""
    if resources.local:
        return partial(run_locally, raises=raises), local_worker()
    from search.running.ray_cluster import running_ray
    from search.running.ray_tuner import run_on_ray

    return run_on_ray, running_ray(resources)


def _searcher(
    found: Sweep,
    unfinished: Sequence[Proposal],
    n_workers: int,
    view: Callback,
) -> Searcher:
    """The search as the sweep's folder has it."""
    config, folder, ledger = found.config, found.folder, found.ledger
    space, base = found.custom.space or load_space(config.space), config.base
    enqueue_first(ledger, space, base)
    rules = Rules(
        rungs=Rungs(config.early_stopping) if config.early_stopping else None,
        stop_when=config.stop_when,
        max_failures=config.limits.max_failures,
        round_size=config.round_size,
    )
    searcher = Searcher(
        Proposer(ledger, space, base, config.branching),
        n_trials=config.trials,
        unfinished=unfinished,
        n_workers=n_workers,
        rules=rules,
        callback=Callbacks(Housekeeping(folder / "trials"), _monitor(found, space), view),
        gpus_per_trial=config.resources.gpus_per_trial,
    )
    for proposal in ledger.results.proposals():
        for metrics in read_metrics(folder / "trials" / proposal.trial):
            searcher.recall(proposal, metrics)
    return searcher


def _monitor(found: Sweep, space: Space) -> Monitor:
    """TensorBoard, with a column for every parameter that the space or a trial has."""
    parameters = parameters_of_space(space, found.config.base)
    for proposal in found.results.proposals():
        parameters = with_seen(parameters, proposal.params)
    return Monitor(found.folder / "tensorboard", parameters, found.results.objectives)


def _unchangeable(config: SweepConfig) -> dict[str, Any]:
    return {name: value for name, value in to_dict(config).items() if name not in CHANGEABLE}


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say what to do when the folder is full, or may not be written."""
    try:
        yield
    except WRITE_ERRORS as error:
        if isinstance(error, OSError) and not is_of_storage(error):
            raise
        raise SweepInterruptedError(_no_room(folder, error)) from error


def _no_room(folder: Path, error: Exception) -> str:
    return (
        f"{folder} must have space and be writable, but: {error}. What is done is kept. "
        f"Make room, then: generalist-search resume {folder}"
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process runs a sweep."""
    try:
        with FileLock(SweepFolder(folder).lock, timeout=0):
            yield
    except Timeout as error:
        raise SweepFolderError(
            f"{folder} must be run by one process at a time, but another runs it."
        ) from error


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C: the first ends the sweep in order.

    Only once Ray runs: as it starts, it puts a handler of its own in the place of any other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
