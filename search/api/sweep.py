"""Run a sweep in a new folder, or continue one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from generalist_core.config.codec import to_dict
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory
from generalist_core.user_code import running_user_code
from generalist_core.validation import InvalidConfigError
from search.api.preparation import make_store, pinned_request, prepare, require_ray
from search.api.report import write_report
from search.config import CustomParts, Resources, SweepConfig
from search.errors import SweepInterruptedError
from search.files import create_folder, read_json
from search.folders import SweepFolder
from search.interruption import Interrupted, was_interrupted
from search.lease import leased
from search.monitoring.console import Lines, drawing, view_of
from search.monitoring.log import redirect_output
from search.monitoring.stages import say_stage
from search.monitoring.tensorboard import Monitor
from search.report.write import warning_if_missing
from search.running.housekeeping import Housekeeping, free_bytes, remove_leftovers, room_of
from search.running.local import local_worker, run_locally
from search.running.preflight import check_that_it_can_start
from search.running.repeats import repeat_front
from search.running.session import (
    cannot_write,
    ended_by_signals,
    interrupted,
    removed,
    write_errors_explained,
)
from search.running.trial import cached_dataset, read_metrics
from search.scheduling.branching import BranchingProposer
from search.scheduling.callbacks import Callback, Callbacks, MayFail
from search.scheduling.early_stopping import Rungs
from search.scheduling.proposers import build_proposer
from search.scheduling.searcher import Rules, Searcher
from search.study.folder import (
    Sweep,
    begin_ledger,
    custom_parts,
    open_sweep,
    require_custom_parts,
    require_pinned_images,
    require_pinned_space,
    rewrite_request,
)
from search.study.records import Proposal
from search.study.request import CHANGEABLE
from search.study.storage import mend_journal, require_writable
from search.wording import plural
from spaces import Space, load_space
from spaces.parameters import parameters_of_space, with_seen


def sweep(  # noqa: PLR0913 - a name for everything that a user may bring
    config: SweepConfig,
    folder: str | Path,
    *,
    space: Space | None = None,
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    callbacks: Sequence[Callback] = (),
    console: Console | None = None,
    debug: bool = False,
) -> Sweep:
    """Run a sweep in a new folder and write its report.

    Args:
        config: the request; if `space` is given, the request's `space` is only its name.
        folder: a new or empty folder; on a cluster of several machines, one that they all share.
        space: a custom search space.
        data: custom images; by default those that the configuration names.
        model: a custom `(n_classes, (c, h, w)) -> torch.nn.Module`.
        callbacks: what follows the sweep, see `search.callbacks`; one that raises is not called
            again, and the sweep goes on.
        console: where progress is shown; by default standard error.
        debug: show what Ray and Optuna write, which otherwise goes to `log.txt` in the folder; a
            local sweep also raises the first error of a trial, and leaves the terminal to a
            debugger.

    Raises:
        InvalidConfigError: a setting that cannot work; found before any trial starts.
        SweepFolderError: the folder is not empty, or cannot be written.
        SweepInterruptedError: Ctrl-C, SIGTERM, SIGHUP or SIGQUIT ended the sweep in order.
    """
    _require_callbacks(callbacks)
    folder = Path(folder).absolute()
    console = console or Console(stderr=True)
    prepared = prepare(config, folder, space, data, model, partial(say_stage, console))
    config, space = prepared.config, prepared.space
    make_store(config)
    if config.storage is not None:
        require_writable(config.storage)
    create_folder(folder)
    with (
        ended_by_signals(folder),
        write_errors_explained(folder),
        leased(SweepFolder(folder).lease, waits=False) as lease,
    ):
        create_folder(folder)  # a sweep that had the lease until now may have filled it
        ledger = begin_ledger(folder, config, custom_parts(data, model), prepared.pins)
        ledger.guard = lease.require
        for seen in prepared.earlier:
            ledger.observe(seen, space, config.base)
        custom = CustomParts(space=space, data=data, model=model)
        begun = Sweep(folder=folder, config=config, ledger=ledger, custom=custom)
        room = room_of(replace(config, trials=prepared.n_trials), custom).text(free_bytes(folder))
        console.print(room, soft_wrap=True, highlight=False)
        return _run(begun, (), console, callbacks, debug=debug)


def resume(  # noqa: PLR0913
    folder: str | Path,
    config: SweepConfig | None = None,
    *,
    space: Space | None = None,
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    callbacks: Sequence[Callback] = (),
    console: Console | None = None,
    debug: bool = False,
) -> Sweep:
    """Continue a sweep, however it ended, and write its report.

    Finished trials are kept; the others continue from their checkpoints under the same number.

    Args:
        folder: the folder of the sweep.
        config: the request from now on, by default the old one without a time budget. It may
            differ in trials and budget (in all), time budget (from now), resources, limits and
            `stop_when`.
        space: the space, if the sweep began with a custom one.
        data: the images, if the sweep began with custom ones.
        model: the factory of models, if the sweep began with a custom one. All three may also be
            those of `search.api.moved`, if what the request names has moved.
        callbacks: as for `sweep`; those of the sweep until now are not kept.
        console: where progress is shown; by default standard error.
        debug: as for `sweep`.

    Raises:
        InvalidConfigError: a custom part of the sweep is missing or differs, or its images, a file
            of the user's or another setting than those above have changed, or there are to be
            fewer trials than are done.
        SweepFolderError: the folder holds no sweep, a damaged file or a request that has changed,
            or another process runs it.
        SweepInterruptedError: Ctrl-C, SIGTERM, SIGHUP or SIGQUIT ended the sweep in order.
    """
    _require_callbacks(callbacks)
    folder = Path(folder).absolute()
    old = open_sweep(folder).config
    require_custom_parts(folder, data, model)
    config = pinned_request(config or replace(old, time_budget_s=None), model)
    if not old.base.channels_last:  # perhaps by the preflight
        config = replace(config, base=replace(config.base, channels_last=False))
    _require_unchanged(config, pinned_request(old, model))
    config = replace(config, base=old.base)
    pins = require_pinned_space(folder, config, space)
    with running_user_code(f"space {config.space}"):
        custom = CustomParts(space=space or load_space(config.space), data=data, model=model)
    console, files = console or Console(stderr=True), SweepFolder(folder)
    say = partial(say_stage, console)
    config, images = check_that_it_can_start(config, data, model, say)
    require_ray(config.resources)
    make_store(config)
    require_pinned_images(pins, images)
    if config.storage is not None:
        require_writable(config.storage)
    with (
        ended_by_signals(folder),
        write_errors_explained(folder),
        leased(files.lease, waits=False) as lease,
    ):
        ledger = open_sweep(folder).ledger
        for proposal in ledger.results.proposals():
            read_metrics(files.trial(proposal.trial).root)
        n_done = ledger.results.counts().total
        if config.trials is not None and config.trials < min(old.trials or n_done, n_done):
            raise InvalidConfigError(
                "`trials` must be at least the number of trials that are done, but got "
                f"trials={config.trials} and {n_done} are done. It counts all "
                "trials of the sweep; leave it out to end those that are left."
            )
        if config.storage is None:
            mend_journal(files.journal)
        ledger.guard = lease.require
        unfinished = ledger.resume()
        remove_leftovers(folder, ledger.results)
        parts = read_json(files.request)["custom"]
        rewrite_request(folder, config, ledger.study, parts, pins)
        done = ledger.results.counts().total
        console.print(
            f"{plural(done, 'trial')} done, {len(unfinished)} to continue, {_end_text(config)}",
            soft_wrap=True,
        )
        resumed = Sweep(folder=folder, config=config, ledger=ledger, custom=custom)
        return _run(resumed, unfinished, console, callbacks, debug=debug)


def _run(
    sweep: Sweep,
    unfinished: Sequence[Proposal],
    console: Console,
    callbacks: Sequence[Callback],
    *,
    debug: bool,
) -> Sweep:
    """Search, repeat the front, and report."""
    folder, config, results = sweep.folder, sweep.config, sweep.results
    quiet = contextlib.nullcontext() if debug else redirect_output(sweep.files.log, console)
    view = Lines(console) if debug else view_of(console, results, config)
    resources = Resources(local=True) if _is_over(sweep, unfinished) else config.resources
    run_trials, workers = _runner(resources, raises=debug)
    sweep.ledger.note_end(has_ended=False)
    if not resources.local:
        say_stage(console, "starting Ray")
    with quiet, drawing(view), workers as n_workers:
        searcher = _searcher(sweep, unfinished, n_workers, view, callbacks)
        with contextlib.suppress(Interrupted):
            run_trials(searcher, sweep)
        cut_short = searcher.close()
        if searcher.exhausted:
            console.print(f"The sweep ends, as {searcher.exhausted}", soft_wrap=True)
        if searcher.is_cut_off and not sweep.files.request.is_file():
            raise removed(folder) from searcher.error
        if isinstance(searcher.error, SweepInterruptedError):
            raise searcher.error
        if isinstance(searcher.error, OSError):
            raise cannot_write(folder, searcher.error) from searcher.error
        if config.repeats and not (cut_short or was_interrupted()):
            with contextlib.suppress(Interrupted):
                repeat_front(sweep, console)
    say_stage(console, "writing the report")
    with warning_if_missing(folder):
        write_report(sweep)
    if searcher.error is not None:
        raise searcher.error
    if was_interrupted() or (cut_short and config.time_budget_s is None):
        raise interrupted(folder)
    sweep.ledger.note_end(has_ended=True)
    return sweep


def _is_over(sweep: Sweep, unfinished: Sequence[Proposal]) -> bool:
    """Whether all trials have ended, so that no worker is needed."""
    config, results = sweep.config, sweep.results
    ends = (
        (config.trials, results.n_asked),
        (config.budget, results.cost()["forward_images"]),
    )
    is_full = any(end is not None and reached >= end for end, reached in ends)
    return is_full and not unfinished and not config.repeats


def _end_text(config: SweepConfig) -> str:
    budget = [] if config.budget is None else [f"a budget of {config.budget:.3g} forward images"]
    trials = [] if config.trials is None else [f"{config.trials} requested"]
    last = "all of the grid" if config.sampler == "grid" else "until the time is up"
    return ", ".join([*trials, *budget]) or last


def _runner(
    resources: Resources, *, raises: bool
) -> tuple[Callable[..., None], AbstractContextManager[int]]:
    """The function that runs trials, and the context of its workers; imports Ray only if needed."""
    if resources.local:
        return partial(run_locally, raises=raises), local_worker()
    from search.running.ray_cluster import running_ray
    from search.running.ray_tuner import run_on_ray

    return run_on_ray, running_ray(resources)


def _searcher(
    sweep: Sweep,
    unfinished: Sequence[Proposal],
    n_workers: int,
    view: Callback,
    callbacks: Sequence[Callback],
) -> Searcher:
    """The search, in the state that the sweep's folder records."""
    config, files, ledger = sweep.config, sweep.files, sweep.ledger
    space, base = sweep.custom.space or load_space(config.space), config.base
    data = lambda: sweep.custom.data or cached_dataset(base.data)  # noqa: E731
    proposer = build_proposer(ledger, space, config, data)
    proposer.enqueue_first()
    stops = not isinstance(proposer, BranchingProposer)
    rules = Rules(
        rungs=Rungs(config.early_stopping) if config.early_stopping and stops else None,
        stop_when=config.stop_when,
        max_failures=config.limits.max_failures,
        budget=math.inf if config.budget is None else config.budget,
        round_size=config.round_size,
    )
    searcher = Searcher(
        proposer,
        n_trials=math.inf if config.trials is None else config.trials,
        unfinished=unfinished,
        n_workers=n_workers,
        rules=rules,
        callback=Callbacks(
            Housekeeping(files.trials),
            watchers=(
                MayFail(f"TensorBoard in {files.tensorboard}", lambda: _monitor(sweep, space)),
                MayFail("The view of the sweep", lambda: view),
                *map(_watching, callbacks),
            ),
        ),
        gpus_per_trial=config.resources.gpus_per_trial,
    )
    for proposal in ledger.results.proposals():
        for metrics in read_metrics(files.trial(proposal.trial).root):
            searcher.recall(proposal, metrics)
            if proposal in unfinished:
                view.on_metrics(proposal.trial, metrics)
    return searcher


def _watching(callback: Callback) -> MayFail[Callback]:
    return MayFail(f"The callback {type(callback).__name__}", lambda: callback)


def _require_callbacks(callbacks: Sequence[Callback]) -> None:
    """Check what a user brings, before any work."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise InvalidConfigError(
                "`callbacks` must be objects of a subclass of search.callbacks.Callback, but got "
                f"{callback!r}."
            )


def _monitor(sweep: Sweep, space: Space) -> Monitor:
    """TensorBoard, with a column for every parameter of the space or of a trial."""
    parameters = parameters_of_space(space, sweep.config.base)
    for proposal in sweep.results.proposals():
        parameters = with_seen(parameters, proposal.params)
    study = sweep.ledger.study.study_name
    return Monitor(sweep.files.tensorboard, parameters, sweep.results.objectives, study=study)


def _require_unchanged(config: SweepConfig, old: SweepConfig) -> None:
    now, before = to_dict(config), to_dict(old)
    changed = [name for name in now if name not in CHANGEABLE and now[name] != before[name]]
    if changed:
        raise InvalidConfigError(
            f"A resumed sweep must keep all settings other than {', '.join(CHANGEABLE)}, but "
            f"{', '.join(changed)} changed."
        )
