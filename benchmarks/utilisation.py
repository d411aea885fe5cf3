"""The fraction of their time that a sweep's workers train; search and Ray take the rest.

python -m benchmarks.utilisation [--workers 2] [--trials 12] [--epochs 24] [--space mixing]

A sweep of the digits runs on Ray, without sharing and early stopping, so that all trials take
equally long: by default about ten seconds on an idle core. A worker is busy for the seconds that
trials record: epochs with their evaluations, and the release. The time begins with the first trial,
since Ray starts only once, and ends with the last release; while the last trials end, some workers
have nothing to do, as in any sweep.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from generalist_core.config.presets import short
from search import Resources, Sweep, SweepConfig, sweep
from search.folders import SweepFolder, TrialFolder
from spaces import SPACES


@dataclass(frozen=True, kw_only=True)
class Use:
    """How workers used their time: the seconds of all trials, and those that passed meanwhile."""

    n_trials: int
    n_workers: int
    busy_s: float
    elapsed_s: float

    @property
    def fraction(self) -> float:
        """The fraction of their time that the workers trained."""
        return self.busy_s / (self.n_workers * self.elapsed_s)


def use_of(finished: Sweep, n_workers: int) -> Use:
    """As the folders of the trials say: a trial writes its configuration first, its points last."""
    folders = [TrialFolder(path) for path in SweepFolder(finished.folder).trials.iterdir()]
    begun = min(folder.config.stat().st_mtime for folder in folders)
    ended = max(folder.points.stat().st_mtime for folder in folders)
    busy_s = finished.results.cost()["seconds"]
    return Use(n_trials=len(folders), n_workers=n_workers, busy_s=busy_s, elapsed_s=ended - begun)


def main() -> None:
    """Run a sweep and print the fraction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--space", default="mixing", choices=SPACES)
    options = parser.parse_args()
    request = SweepConfig(
        base=short(epochs=options.epochs),
        space=options.space,
        trials=options.trials,
        resources=Resources(workers=options.workers),
        shares_warmups=False,
        early_stopping=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        finished = sweep(request, Path(folder) / "sweep", console=Console(quiet=True))
        use = use_of(finished, options.workers)
    print(
        f"{use.n_trials} trials of {use.busy_s / use.n_trials:.1f} s on {use.n_workers} workers: "
        f"{use.busy_s:.1f} s of training in {use.elapsed_s:.1f} s, {use.fraction:.1%} of their time"
    )


if __name__ == "__main__":
    main()
