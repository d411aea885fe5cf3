"""What can be watched while a sweep runs: TensorBoard files and a line on the console a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from generalist_core.evaluation import OperatingPoint
from search.failures import Failure
from search.front import Front
from search.ledger import Ledger
from search.watcher import Watcher


class TrialWriter:
    """Writes one trial's metrics to its TensorBoard run, by epoch."""

    def __init__(self, folder: Path, first_epoch: int = 1) -> None:
        """Open the run; of a trial that goes on, what it wrote from `first_epoch` on is hidden."""
        self.writer = SummaryWriter(str(folder), flush_secs=5, purge_step=first_epoch)

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Every metric with a group in its name, such as `loss/robust`, and the cost."""
        epoch = latest_epoch(metrics)
        groups = ("accuracy/", "loss/", "lr/", "weight/")
        shown = {name: value for name, value in metrics.items() if name.startswith(groups)}
        for name, value in shown.items():
            self.writer.add_scalar(name, value, epoch)
        for name in ("forward_images", "seconds", "synced"):
            self.writer.add_scalar(f"run/{name}", metrics[name], epoch)

    def close(self) -> None:
        """Flush and close the files."""
        self.writer.close()


class Monitor(Watcher):
    """Follows a sweep: one run a trial, and the run `sweep` with the hypervolume and the counts."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self.console = console
        self.sweep = SummaryWriter(str(folder / "sweep"), flush_secs=5)
        self.trials: dict[str, TrialWriter] = {}

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """Write what a running trial reported."""
        if trial not in self.trials:
            self.trials[trial] = TrialWriter(self.folder / trial, latest_epoch(metrics))
        self.trials[trial].write(metrics)

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], ledger: Ledger) -> None:
        """Say what a trial released and what the front is worth now."""
        front = self._on_ended(trial, ledger)
        ranges = []
        for name in ledger.objectives:
            values = [100 * point.accuracies[name] for point in points]
            ranges.append(f"{name} {min(values):.1f}-{max(values):.1f} %")
        worth = f"front of {len(front.points)} points, hypervolume {front.hypervolume:.4f}"
        self.console.print(f"trial {trial}  {'  '.join(ranges)}  {worth}", soft_wrap=True)

    def on_failed(self, trial: str, failure: Failure, ledger: Ledger) -> None:
        """Say why a trial came to nothing."""
        self._on_ended(trial, ledger)
        text = f"trial {trial}  failed, {failure.kind}: {failure.reason}"
        self.console.print(text, soft_wrap=True, markup=False)

    def on_stopped(self, trial: str, epoch: int, ledger: Ledger) -> None:
        """Say that a trial was stopped early."""
        self._on_ended(trial, ledger)
        self.console.print(f"trial {trial}  stopped early, after {epoch} epochs", soft_wrap=True)

    def close(self) -> None:
        """Flush and close all files."""
        self.sweep.close()
        for writer in self.trials.values():
            writer.close()

    def _on_ended(self, trial: str, ledger: Ledger) -> Front:
        if trial in self.trials:
            self.trials.pop(trial).close()
        front, counts = ledger.front(), ledger.counts()
        scalars = {
            "hypervolume": front.hypervolume,
            "front_size": len(front.points),
            "trials/completed": counts.completed,
            "trials/failed": counts.failed,
            "trials/stopped_early": counts.stopped_early,
            **ledger.cost(),
        }
        for name, value in scalars.items():
            self.sweep.add_scalar(f"sweep/{name}", value, counts.total)
        return front


def latest_epoch(metrics: Mapping[str, Any]) -> int:
    """The latest epoch that an expert has behind it."""
    return int(max(value for name, value in metrics.items() if name.startswith("epoch/")))
