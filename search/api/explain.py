"""The story of one trial in plain text: how it was proposed and trained, and what it released."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict, value_at
from generalist_core.config.mixing import as_ratio, ratio_text, released_order
from generalist_core.training.trainer import Metrics
from generalist_core.training.warmup_keys import discarded_warmups
from generalist_core.validation import InvalidConfigError
from search.config import SuccessiveHalving
from search.files import read_if_intact
from search.folders import TrialFolder
from search.front.points import interval_text, trial_id
from search.report.descent import ancestors
from search.running.trial import latest_epoch, read_metrics
from search.scheduling.early_stopping import Decision, decide, epoch_of, rung_results
from search.study.folder import Sweep
from search.study.records import TrialRecord
from search.wording import PROGRAM, command_text, plural, value_text
from spaces.lineages import robust_of

N_TRACE_LINES = 6


def explain(sweep: Sweep, trial: str | int) -> str:
    """The story of a trial, as far as the study and the trial's folder record it.

    Raises:
        InvalidConfigError: no such trial.
        SweepFolderError: a file of the trial is damaged.
    """
    records = {record.trial: record for record in sweep.results.records()}
    name = trial_id(int(trial)) if str(trial).isdigit() else str(trial)
    if name not in records:
        known = f"It has {min(records)} to {max(records)}." if records else "It has none."
        raise InvalidConfigError(f"`trial` must be one of the sweep, but got {trial!r}. {known}")
    record, folder = records[name], sweep.files.trial(name)
    metrics = read_metrics(folder.root)
    parts = [
        _head(sweep, record, metrics),
        _proposal(sweep, record),
        _training(record, metrics, folder),
        _rungs(sweep, record, metrics),
        _released(sweep, record),
        _failed(record, folder),
        _cost(sweep, record, metrics),
    ]
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))


def _head(sweep: Sweep, record: TrialRecord, metrics: Sequence[Metrics]) -> Iterator[str]:
    """How it ended, in one line."""
    text = f"Trial {record.trial}: {record.state}"
    epochs = sweep.config.base.epochs if record.config is None else record.config["epochs"]
    if record.stopped_at is not None:
        text += f" after {plural(record.stopped_at, 'epoch')} of {epochs}"
    elif record.failure is not None:
        text += f", {record.failure.kind}"
    elif record.state == "unfinished":
        done = max((latest_epoch(line) for line in metrics), default=0)
        text += f", {plural(done, 'epoch')} of {epochs} trained; it is running, or waits "
        text += f"for: {command_text(PROGRAM, 'resume', sweep.folder)}"
    else:
        points = sweep.front.points
        n = sum(point.trial == record.trial for point in points)
        text += f", {n or 'none'} of the front's {plural(len(points), 'point')}"
    yield f"{text}."


def _proposal(sweep: Sweep, record: TrialRecord) -> Iterator[str]:
    """Where its parameters come from, and which differ from the sweep's base configuration."""
    rows = [row for name in record.params if (row := _difference(sweep, record, name))]
    if record.is_given:
        yield "Tried first, not suggested by the sampler."
    else:
        n_ended = plural(record.asked_after, "trial")
        yield f"Suggested by the sampler ({sweep.config.sampler}) when {n_ended} had ended."
    yield from _continues(sweep, record)
    base = "the sweep's base configuration"
    yield f"It differs from {base} in" if rows else f"No parameter differs from {base}."
    yield from _table(rows)
    if record.config is None:
        yield "The space did not make a valid configuration from this suggestion."


def _continues(sweep: Sweep, record: TrialRecord) -> Iterator[str]:
    """Which lineage it goes on with, whether by its settings, and as which member."""
    if record.member is not None:
        yield f"A step of member {record.member} of the population."
    ancestor = ancestors(sweep.results.records()).get(record.trial)
    if ancestor is None or record.config is None:
        return
    earlier = robust_of(from_dict(record.config, TrainConfig)).earlier
    is_other = bool(earlier) and earlier[-1].until == ancestor.epochs
    settings = ", with other settings" if is_other else ""
    yield f"It goes on from trial {ancestor.trial} at epoch {ancestor.epochs}{settings}."


def _difference(sweep: Sweep, record: TrialRecord, name: str) -> list[str] | None:
    """A parameter with its value in the base configuration and here; None if they are the same."""
    if name.startswith("release_ratio."):
        return None
    new = record.params[name]
    try:
        old = value_at(sweep.config.base, name)
    except InvalidConfigError:
        old = None
    if old == new or (isinstance(old, int | float) and _text(old) == _text(new)):
        return None
    return [f"  {name}", "-" if old is None else _text(old), "->", _text(new)]


def _training(
    record: TrialRecord, metrics: Sequence[Metrics], folder: TrialFolder
) -> Iterator[str]:
    """The epochs that each expert trained, adopted from a warm-up, or left out."""
    if record.config is None or not metrics:
        return
    config = from_dict(record.config, TrainConfig)
    start = config.sync.start_epoch
    yield f"Training: the experts sync after epoch {start}, then every {_every(config)}."
    discarded, rows = discarded_warmups(config), []
    synced = max(int(line["epoch"]) for line in metrics)
    for name in (expert.name for expert in config.experts):
        trained = sorted(int(line[f"epoch/{name}"]) for line in metrics if f"epoch/{name}" in line)
        reached = max([*trained, min(synced, start)])
        adopted = sorted(set(range(1, min(start, reached) + 1)) - set(trained))
        words = []
        if name in discarded and start:
            span = _span(range(1, start + 1))
            words.append(f"{span} left out (the first sync would overwrite them)")
        elif name not in discarded and adopted:
            words.append(f"{_span(adopted)} adopted from a stored warm-up")
        if trained:
            words.append(f"{_span(trained)} trained here")
        rows.append([f"  {name}", ", ".join(words) or "not trained"])
    yield from _table(rows)
    if "precision" in (released := read_if_intact(folder.points)):
        yield f"  in {released['precision']} on device {released['device']}"


def _every(config: TrainConfig) -> str:
    n = config.sync.every_epochs
    return "epoch" if n == 1 else f"{n} epochs"


def _rungs(sweep: Sweep, record: TrialRecord, metrics: Sequence[Metrics]) -> Iterator[str]:
    """The rungs that it reached, and its rank there among all results so far."""
    halving, objectives = sweep.config.early_stopping, sweep.results.objectives
    if halving is None:
        yield "Early stopping is off."
        return
    if record.config is None:
        return
    config = from_dict(record.config, TrainConfig)
    reached = [
        (rung, accuracies, line)
        for line in metrics
        for rung, accuracies in rung_results(line, config, halving).items()
    ]
    if not reached:
        return
    rows, others = [], _others(sweep, record.trial, halving)
    for rung, accuracies, line in reached:
        learner, standing = rung.split("@")[0], _standing(others, rung, accuracies, halving)
        is_last = rung == reached[-1][0] and record.state == "stopped early"
        rows.append(
            [
                f"  {epoch_of(learner, line)}",
                "global learner" if learner == "global" else f"expert {learner}",
                *(f"{100 * accuracy:.1f}" for accuracy in accuracies),
                f"{standing.place} of {standing.n_results}",
                "stopped here" if is_last else "continued",
            ]
        )
    yield (
        f"Rungs: once a rung holds {halving.eta:g} results, the best 1/{halving.eta:g} continue, "
        "and so does the best in any objective."
    )
    yield "Ranks are among all results of the sweep, including those after the decision."
    yield from _table([["  epoch", "learner", *(f"{n} %" for n in objectives), "rank", ""], *rows])


def _others(sweep: Sweep, trial: str, halving: SuccessiveHalving) -> dict[str, list[list[float]]]:
    """The results that the other trials reported to each rung."""
    reported: dict[str, list[list[float]]] = {}
    for proposal in sweep.results.proposals():
        if proposal.trial == trial:
            continue
        for line in read_metrics(sweep.files.trial(proposal.trial).root):
            for rung, accuracies in rung_results(line, proposal.config, halving).items():
                reported.setdefault(rung, []).append(accuracies)
    return reported


def _standing(
    others: Mapping[str, list[list[float]]],
    rung: str,
    accuracies: list[float],
    halving: SuccessiveHalving,
) -> Decision:
    reported = [*others.get(rung, []), accuracies]
    return decide([np.array([values]) for values in reported], halving.eta)


def _released(sweep: Sweep, record: TrialRecord) -> Iterator[str]:
    """What was released: for each, whether it is on the front or what beats it."""
    points = [point for point in sweep.results.points() if point.trial == record.trial]
    if not points:
        return
    points.sort(key=lambda point: released_order(point.mixing_ratio))
    experts = [expert["name"] for expert in (record.config or {}).get("experts", [])]
    of = f"weight of {experts[1]}" if len(experts) == 2 else f"weights of {', '.join(experts)}"
    yield (
        f"Released after epoch {points[0].epoch}, measured on {points[0].n_images} validation "
        f"images with 95 % intervals (ratio: {of}):"
    )
    objectives = sweep.results.objectives
    rows = [["  ratio", *(f"{name} %" for name in objectives), ""]]
    for point in points:
        cells = [interval_text(point.accuracies[name], point.interval(name)) for name in objectives]
        best = sweep.front.as_good_as(point).name
        verdict = "on the front" if best == point.name else f"no better than {best}"
        rows.append([f"  {ratio_text(point.mixing_ratio)}", *cells, verdict])
    yield from _table(rows)


def _failed(record: TrialRecord, folder: TrialFolder) -> Iterator[str]:
    """Why it failed, the end of the traceback, and where it hung."""
    if record.failure is None:
        return
    yield f"Reason: {record.failure.reason}"
    if folder.failure.is_file():
        trace = read_if_intact(folder.failure).get("traceback", "").rstrip().splitlines()
        yield from (f"  {line}" for line in trace[-N_TRACE_LINES:])
        yield f"Whole traceback: {folder.failure}"
    if folder.hang.is_file():
        yield "Where it hung, innermost call first:"
        lines = folder.hang.read_text(encoding="utf-8", errors="replace").splitlines()
        yield from (f"  {line}" for line in lines[:N_TRACE_LINES])
        yield f"All threads: {folder.hang}"


def _cost(sweep: Sweep, record: TrialRecord, metrics: Sequence[Metrics]) -> Iterator[str]:
    """Its cost, the fraction of the sweep's cost, and what was adopted or lost."""
    cost = dict(record.cost)
    if not cost and metrics:
        cost = {"forward_images": metrics[-1]["forward_images"]}
        cost["seconds"] = sum(line["seconds"] for line in metrics)
    images, total = cost.get("forward_images", 0), sweep.results.cost()["forward_images"]
    of = f", {images / total:.0%} of the sweep's" if total >= images > 0 else ""
    text = f"Cost: {images:.3g} forward images{of}, {cost.get('seconds', 0):.0f} s of training"
    for name, words in (("reused", "adopted"), ("lost", "lost and repeated")):
        if amount := cost.get(f"{name}_forward_images", 0):
            text += f"; {amount:.3g} {words}"
    yield f"{text}."


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells in columns, left-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _text(value: Any) -> str:
    return ratio_text(as_ratio(value)) if isinstance(value, list | tuple) else value_text(value)


def _span(epochs: Sequence[int]) -> str:
    """Consecutive epochs as `epoch 3` or `epochs 1-4`."""
    first, last = epochs[0], epochs[-1]
    return f"epoch {first}" if first == last else f"epochs {first}-{last}"
