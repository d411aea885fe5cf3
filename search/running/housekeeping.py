"""What a sweep keeps on disk: what it needs to resume and to make the mixtures on the front."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex

from generalist_core.training.evaluator import OperatingPoint
from search.folders import SweepFolder, TrialFolder
from search.lease import is_held
from search.scheduling.callbacks import Callback
from search.study.failures import Failure
from search.study.results import Results

log = logging.getLogger(__name__)


class Housekeeping(Callback):
    """Removes the checkpoint of a trial that ended, and averages that have left the front."""

    def __init__(self, trials: Path) -> None:
        self.trials = trials

    def on_completed(self, trial: str, _: Sequence[OperatingPoint], results: Results) -> None:
        """Keep the averages that the front needs."""
        self._remove_what_resumes(trial)
        on_front = {point.trial for point in results.front().points}
        for folder in self.trials.glob("*"):
            if folder.name not in on_front and results.has_ended(folder.name):
                TrialFolder(folder).averages.unlink(missing_ok=True)

    def on_failed(self, trial: str, _: Failure, __: Results) -> None:
        """A failed trial is not resumed."""
        self._remove_what_resumes(trial)

    def on_stopped(self, trial: str, _: int, __: Results) -> None:
        """A stopped trial is not resumed."""
        self._remove_what_resumes(trial)

    def _remove_what_resumes(self, trial: str) -> None:
        files = TrialFolder(self.trials / trial)
        for file in (files.checkpoint, files.heartbeat):
            file.unlink(missing_ok=True)


def removable(folder: Path, results: Results) -> dict[str, list[Path]]:
    """What no command needs any more of a sweep that does not run: files and folders by their kind.

    Shared warm-ups stay while a trial is unfinished, and while another sweep trains in them. The
    folder `lost` stays, too: nothing else has what is in it.
    """
    files = SweepFolder(folder)
    on_front = {point.trial for point in results.front().points}
    ended = [
        TrialFolder(trial) for trial in files.trials.glob("*") if results.has_ended(trial.name)
    ]
    is_used = results.counts().unfinished > 0 or any(map(is_held, files.warmups.glob("*/claim")))
    found = {
        "shared warm-ups": [] if is_used else [files.warmups],
        "checkpoints of trials that ended": [trial.checkpoint for trial in ended],
        "weights of trials that are not on the front": [
            trial.averages for trial in ended if trial.root.name not in on_front
        ],
        "files that were partly written": partly_written(folder),
        "files of Ray Tune": [files.ray],
    }
    return {
        kind: [path for path in paths if path.exists() and not path.is_symlink()]
        for kind, paths in found.items()
    }


def partly_written(folder: Path) -> list[Path]:
    """What a crash left of the files that were being written."""
    aside = f".*.{'[0-9a-f]' * 16}"  # as `search.files.write_bytes` names them
    places = (aside, f"trials/*/{aside}", f"models/{aside}")
    return [part for place in places for part in folder.glob(place)]


def remove_leftovers(folder: Path, results: Results) -> None:
    """Remove what a crash left: partly written files, and checkpoints of trials that have ended.

    Folders of trials that the study does not know are moved to `lost`: the study is an earlier
    state than they are, and will give their names to other trials.
    """
    for part in partly_written(folder):
        part.unlink(missing_ok=True)
    files = SweepFolder(folder)
    for trial in (*files.trials.glob("*"), *files.all_repeats.glob("*")):
        if not results.was_asked(trial.name.partition("-")[0]):
            files.lost.mkdir(exist_ok=True)
            kept = trial.rename(files.lost / f"{trial.parent.name}-{trial.name}-{token_hex(4)}")
            log.warning("The study does not have trial %s. It is kept in %s.", trial.name, kept)
    for trial in files.trials.glob("*"):
        if results.has_ended(trial.name):
            TrialFolder(trial).checkpoint.unlink(missing_ok=True)
        TrialFolder(trial).heartbeat.unlink(missing_ok=True)
