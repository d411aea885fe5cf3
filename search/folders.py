"""The names of all files of a sweep and of its trials, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class _Inside:
    """A file or folder by its name in the folder `root`, and its meaning."""

    def __init__(self, name: str, meaning: str) -> None:
        self.name, self.__doc__ = name, meaning

    def __get__(self, folder: TrialFolder | SweepFolder, _: type) -> Path:
        return folder.root / self.name


@dataclass(frozen=True)
class TrialFolder:
    """The files of one trial."""

    root: Path

    config = _Inside("config.json", "The configuration that is trained.")
    metrics = _Inside("metrics.jsonl", "One JSON line per trained epoch.")
    checkpoint = _Inside("checkpoint.pt", "The state of a training that has not ended.")
    averages = _Inside("averages.pt", "Each expert's average, from which any mixture can be made.")
    points = _Inside("points.json", "The released operating points, and the precision of training.")
    failure = _Inside("failure.json", "Why the trial failed, with the traceback.")
    heartbeat = _Inside("heartbeat", "Changes as long as the worker of the trial is alive.")
    hang = _Inside("hang.txt", "Where the trial hung: the stack of each thread.")


@dataclass(frozen=True)
class SweepFolder:
    """The files of one sweep."""

    root: Path

    request = _Inside("sweep.json", "The whole request, and the environment that it was made in.")
    journal = _Inside("study.journal", "The Optuna study: the source of truth.")
    lease = _Inside(".lease", "Names the one process that runs the sweep.")
    report_lease = _Inside(".report-lease", "Names the one process that writes the report.")
    log = _Inside("log.txt", "The output of Ray and Optuna, and all warnings.")
    trials = _Inside("trials", "One folder per trial.")
    all_repeats = _Inside("repeats", "One folder per repeat.")
    lost = _Inside("lost", "Folders of trials that the study, taken back, no longer has.")
    repeats = _Inside("repeats.json", "The operating points of all repeats of the front.")
    warmups = _Inside("warmups", "The shared warm-ups, unless the request names another store.")
    tensorboard = _Inside("tensorboard", "One TensorBoard run per trial, and the run `sweep`.")
    ray = _Inside("ray", "The files of Ray Tune, which are never read again.")
    evaluations = _Inside("verify", "Evaluations of a verification that has not ended.")
    verified = _Inside("verified.json", "The front on test images.")
    report = _Inside("report.html", "The report as one page.")
    front_json = _Inside("front.json", "The front as one JSON document.")
    front_csv = _Inside("front.csv", "The front as a table.")
    front_picture = _Inside("front.png", "The front as a picture.")
    plots = _Inside("plots", "The plots for print, and the numbers in them.")

    def trial(self, trial: str) -> TrialFolder:
        """The folder of one trial, by its id."""
        return TrialFolder(self.trials / trial)

    def repeat(self, trial: str, repeat: int) -> TrialFolder:
        """The folder of one repeat, with another seed, of a trial on the front."""
        return TrialFolder(self.all_repeats / f"{trial}-{repeat}")
