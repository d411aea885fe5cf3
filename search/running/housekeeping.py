"""What a sweep keeps on disk: what is needed to go on, and to make the mixtures on the front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from generalist_core.training.evaluator import OperatingPoint
from search.running.trial import AVERAGES, CHECKPOINT
from search.scheduling.callbacks import Callback
from search.study.failures import Failure
from search.study.results import Results


class Housekeeping(Callback):
    """Removes the checkpoint of a trial that ended, and averages that have left the front."""

    def __init__(self, trials: Path) -> None:
        self.trials = trials

    def on_completed(self, trial: str, _: Sequence[OperatingPoint], results: Results) -> None:
        """Keep the averages that the front needs."""
        self._remove(trial, CHECKPOINT)
        on_front = {point.trial for point in results.front().points}
        for path in self.trials.glob(f"*/{AVERAGES}"):
            if path.parent.name not in on_front and results.has_ended(path.parent.name):
                path.unlink()

    def on_failed(self, trial: str, _: Failure, __: Results) -> None:
        """Nobody goes on from here."""
        self._remove(trial, CHECKPOINT)

    def on_stopped(self, trial: str, _: int, __: Results) -> None:
        """Nobody goes on from here."""
        self._remove(trial, CHECKPOINT)

    def _remove(self, trial: str, name: str) -> None:
        (self.trials / trial / name).unlink(missing_ok=True)


def sweep_up(folder: Path, results: Results) -> None:
    """Remove what a crash left: parts of files, and checkpoints of trials that have ended."""
    for part in (*folder.glob(".*.*"), *folder.glob("trials/*/.*.*"), *folder.glob("models/.*.*")):
        part.unlink(missing_ok=True)
    for path in (folder / "trials").glob(f"*/{CHECKPOINT}"):
        if results.has_ended(path.parent.name):
            path.unlink()
