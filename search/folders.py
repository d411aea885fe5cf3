"""The names of all files of a sweep and of its trials, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrialFolder:
    """The files of one trial."""

    root: Path

    @property
    def config(self) -> Path:
        """The configuration that is trained."""
        return self.root / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per trained epoch."""
        return self.root / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The state from which a training continues, while it runs."""
        return self.root / "checkpoint.pt"

    @property
    def averages(self) -> Path:
        """Each expert's average, from which any mixture can be made."""
        return self.root / "averages.pt"

    @property
    def points(self) -> Path:
        """The released operating points."""
        return self.root / "points.json"

    @property
    def failure(self) -> Path:
        """Why the trial failed, with the traceback."""
        return self.root / "failure.json"

    @property
    def heartbeat(self) -> Path:
        """Changes as long as the worker that trains the trial is alive."""
        return self.root / "heartbeat"

    @property
    def hang(self) -> Path:
        """Where the trial hung: the stack of each thread."""
        return self.root / "hang.txt"


@dataclass(frozen=True)
class SweepFolder:
    """The files of one sweep."""

    root: Path

    @property
    def request(self) -> Path:
        """The whole request, and the environment that it was made in."""
        return self.root / "sweep.json"

    @property
    def journal(self) -> Path:
        """The Optuna study: the source of truth."""
        return self.root / "study.journal"

    @property
    def lease(self) -> Path:
        """Names the one process that runs the sweep."""
        return self.root / ".lease"

    @property
    def report_lease(self) -> Path:
        """Names the one process that writes the report."""
        return self.root / ".report-lease"

    @property
    def log(self) -> Path:
        """The output of Ray and Optuna, and all warnings."""
        return self.root / "log.txt"

    @property
    def trials(self) -> Path:
        """One folder per trial."""
        return self.root / "trials"

    def trial(self, trial: str) -> TrialFolder:
        """The folder of one trial, by its id."""
        return TrialFolder(self.trials / trial)

    def repeat(self, trial: str, repeat: int) -> TrialFolder:
        """The folder of one repeat, with another seed, of a trial on the front."""
        return TrialFolder(self.all_repeats / f"{trial}-{repeat}")

    @property
    def all_repeats(self) -> Path:
        """One folder per repeat."""
        return self.root / "repeats"

    @property
    def lost(self) -> Path:
        """Folders of trials that the study does not have, as it was taken back to before them."""
        return self.root / "lost"

    @property
    def repeats(self) -> Path:
        """The operating points of all repeats of the front."""
        return self.root / "repeats.json"

    @property
    def warmups(self) -> Path:
        """The warm-ups that the trials share, unless the request names another store."""
        return self.root / "warmups"

    @property
    def models(self) -> Path:
        """The weights of every point on the front."""
        return self.root / "models"

    @property
    def tensorboard(self) -> Path:
        """One TensorBoard run per trial, and the run `sweep`."""
        return self.root / "tensorboard"

    @property
    def ray(self) -> Path:
        """The files of Ray Tune, which are never read again."""
        return self.root / "ray"

    @property
    def evaluations(self) -> Path:
        """Evaluations of a verification in progress; the next call continues them."""
        return self.root / "verify"

    @property
    def verified(self) -> Path:
        """The front on test images."""
        return self.root / "verified.json"

    @property
    def report(self) -> Path:
        """The report as one page."""
        return self.root / "report.html"

    @property
    def front_json(self) -> Path:
        """The front as one JSON document."""
        return self.root / "front.json"

    @property
    def front_csv(self) -> Path:
        """The front as a table."""
        return self.root / "front.csv"

    @property
    def front_picture(self) -> Path:
        """The front as a picture."""
        return self.root / "front.png"

    @property
    def plots(self) -> Path:
        """The plots for print, and the numbers in them."""
        return self.root / "plots"
