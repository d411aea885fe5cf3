"""What the commands print of their results, for users to read."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from generalist_core.config import TrainConfig
from generalist_core.config.mixing import GLOBAL
from generalist_core.data.splits import Dataset
from generalist_core.fingerprints import images_digest
from generalist_core.training.trainer import Metrics
from search.api.evaluate import suite_table
from search.api.preparation import Rehearsal
from search.api.train import Trained
from search.api.verify import verified_notes, verified_table
from search.cli.options import ResultOptions
from search.cli.profile import profile_training
from search.cli.sweep_file import file_text
from search.config import SweepConfig
from search.errors import SweepInterruptedError, WorkerError
from search.files import disk_bytes
from search.folders import SweepFolder
from search.front.pick import Pick, is_rule
from search.front.points import accuracies_text, point_to_dict
from search.front.redraws import MEANING, kept_shares, picked_share
from search.report.console_table import console_table
from search.report.write import front_document
from search.running.trial import cached_dataset
from search.scheduling.proposers import has_lineages
from search.study.folder import Sweep
from search.wording import PROGRAM, command_text, plural, printable
from spaces import SPACES

log = logging.getLogger(__name__)


def epoch_printer(console: Console, epochs: int) -> Callable[[Metrics], None]:
    """A callback that prints one line per epoch, with losses and accuracies."""

    def show(metrics: Metrics) -> None:
        shown = [f"{k} {v:.3f}" for k, v in metrics.items() if k.startswith(("loss/", "accuracy/"))]
        text = f"epoch {metrics['epoch']:>3}/{epochs}  {'  '.join(shown)}"
        console.print(text, soft_wrap=True, markup=False)

    return show


def print_profile(config: TrainConfig, data: Dataset, trace: Path, console: Console) -> None:
    """Profile a few steps, and print which operations take their time."""
    for name, fraction in profile_training(config, data, trace):
        console.print(f"{fraction:6.1%}  {name}", highlight=False, markup=False)
    text = f"trace of five steps: {printable(str(trace))} (open it in https://ui.perfetto.dev)"
    console.print(text, markup=False)


def print_points(trained: Trained, output: ResultOptions) -> None:
    """Print the operating points that a training released, where they are, and what may follow."""
    points = [point_to_dict(point) for point in trained.points]
    if output.json:
        say(json.dumps({"points": points, "forward_images": trained.forward_images}))
        return
    for point in points:
        accuracies = "  ".join(f"{k} {100 * v:.1f} %" for k, v in point["accuracies"].items())
        ratio = point["mixing_ratio"]
        say(f"{'global learner' if ratio == GLOBAL else f'mixing ratio {ratio}'}: {accuracies}")
    if output.quiet:
        return
    folder, files = trained.folder, trained.files
    say(f"Written: {files.points} and metrics.jsonl; weights of the experts in {files.averages}")
    say(f"Watch:   {command_text('tensorboard', '--logdir', SweepFolder(folder).tensorboard)}")
    say(f"Next:    {command_text(PROGRAM, 'front', folder)}; also report, verify and export")
    words = (PROGRAM, "sweep", "--config", files.config, "--out", f"{folder}-sweep")
    say(f"Search around it: {command_text(*words)}")


def print_finished(sweep: Sweep, output: ResultOptions) -> None:
    """Print the front of a sweep that has ended, and where everything is.

    Raises:
        SweepInterruptedError: no trial has ended yet.
        WorkerError: no trial succeeded.
    """
    if sweep.counts.completed == 0:
        if sweep.counts.total == 0:
            again = command_text(PROGRAM, "resume", sweep.folder)
            raise SweepInterruptedError(
                f"The time was up before the first trial had ended. Nothing is lost: {again}"
            )
        reasons = sorted({failure.reason for failure in sweep.results.failures().values()})
        why = "; ".join(reasons) or "all were stopped early"
        raise WorkerError(f"No trial succeeded. Reasons: {why}.")
    print_front(sweep, output)
    if output.json or output.quiet:
        return
    folder, unfinished = sweep.folder, sweep.counts.unfinished
    if sweep.files.report.is_file():
        say(f"Report: {folder}/report.html, front.csv and .json")
    else:
        say(f"The report is missing; write it: {command_text(PROGRAM, 'report', folder)}")
    say(f"Watch:  {command_text('tensorboard', '--logdir', sweep.files.tensorboard)}")
    choose = command_text(PROGRAM, "front", folder, "--pick", "knee")
    say(f"Next:   {choose}, then export; on test images: {command_text(PROGRAM, 'verify', folder)}")
    if unfinished:
        again = command_text(PROGRAM, "resume", folder)
        say(f"{plural(unfinished, 'trial')} unfinished; continue: {again}")


def warn_of_searched_lengths(config: SweepConfig) -> None:
    """Warn if the number of epochs does not bound the trainings of a built-in space."""
    if config.space in SPACES and has_lineages(SPACES[config.space], config.base):
        log.warning(
            "The space %s searches how long a training is, so --epochs does not bound it. Give a "
            "--budget, or take a space of a fixed length, such as --space mixing.",
            config.space,
        )


def warn_of_other_images(config: SweepConfig, digest: str) -> None:
    """Warn if the train and validation images are not those of that digest, of an earlier sweep."""
    data = cached_dataset(config.base.data)
    if images_digest(data.train, data.validation) != digest:
        log.warning(
            "The train and validation images are not those of the sweep in --file: accuracies "
            "cannot be compared with its own."
        )


def print_rehearsal(rehearsal: Rehearsal, output: ResultOptions) -> None:
    """Print what a sweep would be: its request and space, its cost and disk as far as known."""
    if output.json:
        say(json.dumps(rehearsal.to_dict()))
        return
    config = rehearsal.config
    say(file_text(config))
    table = Table(title=f"Space {printable(config.space)}", title_justify="left")
    table.add_column("parameter", overflow="fold")
    table.add_column("values", overflow="fold")
    for name, values in rehearsal.values_texts().items():
        table.add_row(printable(name), printable(values))
    print_table(table, width=100)
    for line in rehearsal.estimates():
        say(line)
    say("Rehearsed: a step of each expert, the mixture and all attacks, on two images.")
    say("Nothing was begun.")


def print_front(sweep: Sweep, output: ResultOptions) -> None:
    """Print a sweep's front, how its trials ended and what it cost."""
    kept = kept_shares(sweep.front, sweep.results.points())
    if output.json:
        document = front_document(sweep.folder, sweep.results)
        further = {"kept_shares": kept, "disk_bytes": disk_bytes(sweep.folder)}
        say(json.dumps({**document, **further}))
        return
    front, counts, cost = sweep.front, sweep.counts, sweep.results.cost()
    kinds = sweep.results.failure_kinds().items()
    failures = f" ({', '.join(f'{n} {kind}' for kind, n in kinds)})" if kinds else ""
    print_table(console_table(sweep.folder, front, kept), width=140)
    if kept:
        say(f"kept: in how many of {MEANING} the point stays on the front")
    say(
        f"Hypervolume {front.hypervolume:.4f} above {front.reference}; "
        f"{plural(counts.completed, 'trial')} completed, {counts.stopped_early} stopped early, "
        f"{counts.failed} failed{failures}; "
        f"{cost['forward_images']:.3g} forward images, {cost['seconds']:.0f} s of training, "
        f"{disk_bytes(sweep.folder) / 1e6:.1f} MB on disk"
    )


def print_pick(sweep: Sweep, spec: str, output: ResultOptions) -> None:
    """Print the point that `spec` picks, the reason, how stable that is, and how to export it."""
    picked, share = sweep.pick(spec), None
    if is_rule(spec):
        share = picked_share(sweep.front, sweep.results.points(), spec)
    if output.json:
        say(json.dumps({**picked.to_dict(), "picked_share": share}))
        return
    _print_point(picked)
    if share is not None:
        say(f"The same rule picks it in {100 * share:.0f} % of {MEANING}.")
    if sweep.files.trial(picked.point.trial).averages.is_file():
        words = (PROGRAM, "export", sweep.folder, "--pick", picked.point.name, "--to", "model.pt")
        say(f"Export it: {command_text(*words)}")


def print_exported(
    picked: Pick, file: Path, card: Mapping[str, Any], output: ResultOptions
) -> None:
    """Print which point was exported, where to, and how to load it."""
    if output.json:
        say(json.dumps(card))
        return
    _print_point(picked)
    size = f"{file.stat().st_size / 1e6:.2g} MB"
    say(f"Written: {file} ({size}) and its card {file}.json. To use it:")
    say("\n".join(f"    {line}" for line in card["load"]))


def print_verified(sweep: Sweep, document: Mapping[str, Any], output: ResultOptions) -> None:
    """Print each point of a front on test images, beside what it was on validation images."""
    if output.json:
        say(json.dumps(document))
        return
    print_table(verified_table(document), width=120)
    for note in verified_notes(document):
        say(note)
    hypervolume = document["hypervolume"]
    say(
        f"Hypervolume {hypervolume['validation']:.4f} on validation, "
        f"{hypervolume['test']:.4f} on test; "
        f"{plural(len(document['lost_their_place']), 'point')} no longer on the front; "
        f"{document['seconds']:.0f} s. Details: {sweep.files.verified}"
    )


def print_suite(document: Mapping[str, Any], output: ResultOptions) -> None:
    """Print the accuracy after each attack, the indicators, and the attacks that were left out."""
    if output.json:
        say(json.dumps(document))
        return
    print_table(suite_table(document), width=100)
    for indicator in document["indicators"]:
        say(f"indicator: {indicator['name']}: {indicator['message']}")
    for name, reason in document["skipped"].items():
        say(f"left out: {name}: {reason}")


def say(text: str) -> None:
    """Print to standard output."""
    print(printable(text))


def _print_point(picked: Pick) -> None:
    say(f"{picked.point.name}  {accuracies_text(picked.point)} on validation images")
    say(picked.reason)


def print_table(table: Table, *, width: int) -> None:
    """Print a table as wide as the terminal, or as `width` columns elsewhere."""
    Console(width=None if sys.stdout.isatty() else width).print(table)
