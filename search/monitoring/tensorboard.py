"""What TensorBoard shows of a sweep while it runs: one run a trial, and the run `sweep`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from generalist_core.training.evaluator import OperatingPoint
from search.front.front import hypervolume
from search.monitoring.hparams import METRIC, Status, write_end, write_experiment, write_start
from search.report.plots import front_plot, release_plot
from search.running.trial import latest_epoch
from search.scheduling.callbacks import Callback
from search.study.failures import Failure
from search.study.records import Proposal
from search.study.results import Results
from spaces.parameters import Choices, with_seen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COST_UNIT = 1000
"""Forward images that make a step of the run `sweep`; TensorBoard has whole steps only."""

PICTURE_S = 15.0
"""How long a picture of the front is left before the next; drawing takes a third of a second."""

ABOUT = f"""**Step: {COST_UNIT:,} forward images** of all trials that have ended (one forward of one
image is 1, each gradient 1 more). For time, choose *Relative* or *Wall* as the horizontal axis.

`sweep/hypervolume` is that of the front on validation images. On the HParams page a trial's
objectives are those of the mixture at the release ratio that the sampler asked for, so that they
belong together; `curve` is the hypervolume of all its mixtures. A trial that was stopped or failed
has none."""


class TrialWriter:
    """Writes one trial's metrics to its TensorBoard run, by epoch."""

    def __init__(self, folder: Path, first_epoch: int = 1) -> None:
        """Open the run; of a trial that goes on, what it wrote from `first_epoch` on is hidden."""
        self.writer = SummaryWriter(str(folder), flush_secs=5, purge_step=first_epoch)
        self.epoch = first_epoch

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Every metric with a group in its name, such as `loss/robust`, the syncs, and the cost."""
        self.epoch = latest_epoch(metrics)
        groups = ("accuracy/", "loss/", "lr/", "weight/")
        shown = {name: value for name, value in metrics.items() if name.startswith(groups)}
        for name, value in shown.items():
            self.writer.add_scalar(name, value, self.epoch)
        experts = [name.removeprefix("epoch/") for name in metrics if name.startswith("epoch/")]
        # An expert that warms up alone counts its own epochs: steps may not go back in a series.
        alone = f"/{experts[0]}" if len(experts) == 1 else ""
        for name in ("forward_images", "seconds", "synced"):
            self.writer.add_scalar(f"run/{name}{alone}", metrics[name], self.epoch)

    def release(self, points: Sequence[OperatingPoint]) -> None:
        """Draw the released mixtures."""
        self.writer.add_figure("release", _for_screen(release_plot(points)), self.epoch)

    def close(self) -> None:
        """Flush and close the files."""
        self.writer.close()


class Monitor(Callback):
    """Follows a sweep; its HParams page has `parameters` and `objectives` as columns.

    Pictures are drawn in a thread, in their order, so that no worker waits for them.
    """

    def __init__(
        self, folder: Path, parameters: Mapping[str, Choices], objectives: Sequence[str]
    ) -> None:
        self.folder = folder
        self.parameters = dict(parameters)
        self.metrics = {name: f"{name} accuracy at the trial's own ratio" for name in objectives}
        self.metrics["curve"] = "hypervolume of all mixtures of the trial"
        self.sweep = SummaryWriter(str(folder / "sweep"), flush_secs=5)
        self.sweep.add_text("about", ABOUT)
        self.trials: dict[str, TrialWriter] = {}
        self.proposals: dict[str, Proposal] = {}
        self._painter = ThreadPoolExecutor(max_workers=1)
        self._painted: deque[Future[None]] = deque()
        self._results: Results | None = None
        self._drawn: tuple[str, ...] = ()
        self._drawn_at = -PICTURE_S
        write_experiment(folder, self.parameters, self.metrics)

    def on_begun(self, proposal: Proposal) -> None:
        """Write its parameters; those that nobody knew of become columns of their own."""
        self.proposals[proposal.trial] = proposal
        if not proposal.params.keys() <= self.parameters.keys():
            self.parameters = with_seen(self.parameters, proposal.params)
            write_experiment(self.folder, self.parameters, self.metrics)
        run = self.folder / proposal.trial
        write_start(run, proposal.trial, proposal.params, self.parameters)

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """Write what a running trial reported."""
        if trial not in self.trials:
            self.trials[trial] = TrialWriter(self.folder / trial, latest_epoch(metrics))
        self.trials[trial].write(metrics)

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], results: Results) -> None:
        """Write the trial's objectives and its release curve, and where the sweep stands."""
        writer, ratio = self.trials.get(trial), self.proposals[trial].mixing_ratio
        if writer is None:
            writer = self.trials[trial] = TrialWriter(self.folder / trial)
        own = next(point for point in points if point.mixing_ratio == ratio)
        for name in results.objectives:
            writer.writer.add_scalar(f"{METRIC}/{name}", own.accuracies[name], writer.epoch)
        worth = curve_worth(points, results)
        writer.writer.add_scalar(f"{METRIC}/curve", worth, writer.epoch)
        self._paint(lambda: writer.release(points))
        self._on_ended(trial, results, "STATUS_SUCCESS")

    def on_failed(self, trial: str, failure: Failure, results: Results) -> None:  # noqa: ARG002
        """Count it."""
        self._on_ended(trial, results, "STATUS_FAILURE")

    def on_stopped(self, trial: str, epoch: int, results: Results) -> None:  # noqa: ARG002
        """Count it."""
        self._on_ended(trial, results, "STATUS_SUCCESS")

    def close(self) -> None:
        """Draw the last front, flush and close all files."""
        if self._results is not None:
            self._draw_front(self._results)
        self._painter.shutdown()
        self.sweep.close()
        for writer in self.trials.values():
            writer.close()
        self._raise_errors()

    def _on_ended(self, trial: str, results: Results, status: Status) -> None:
        if trial in self.trials:
            self._paint(self.trials.pop(trial).close)
        self.proposals.pop(trial, None)
        if (self.folder / trial).is_dir():  # else it was rejected, and never began
            write_end(self.folder / trial, status)
        self._results, step = results, _step(results)
        front, counts = results.front(), results.counts()
        scalars = {
            "hypervolume": front.hypervolume,
            "front_size": len(front.points),
            "trials/completed": counts.completed,
            "trials/failed": counts.failed,
            "trials/stopped_early": counts.stopped_early,
            **{f"failed/{kind}": n for kind, n in results.failure_kinds().items()},
            **{f"cost/{name}": spent for name, spent in results.cost().items()},
        }
        for name, value in scalars.items():
            self.sweep.add_scalar(f"sweep/{name}", value, step)
        if time.monotonic() - self._drawn_at >= PICTURE_S:
            self._draw_front(results)

    def _draw_front(self, results: Results) -> None:
        """Draw the front, if it is another than the last that was drawn."""
        front = results.front()
        names = tuple(point.name for point in front.points)
        if names != self._drawn:
            points, step = results.points(), _step(results)

            def draw() -> None:
                self.sweep.add_figure("front", _for_screen(front_plot(front, points)), step)

            self._paint(draw)
            self._drawn, self._drawn_at = names, time.monotonic()

    def _paint(self, work: Callable[[], None]) -> None:
        """Do this after the last picture."""
        self._raise_errors()
        self._painted.append(self._painter.submit(work))

    def _raise_errors(self) -> None:
        """Raise what went wrong with a picture."""
        while self._painted and self._painted[0].done():
            self._painted.popleft().result()


def curve_worth(points: Sequence[OperatingPoint], results: Results) -> float:
    """The hypervolume of one trial's mixtures, above the floors of the sweep."""
    rows = [[point.accuracies[name] for name in results.objectives] for point in points]
    return hypervolume(np.array(rows), results.reference)


def _step(results: Results) -> int:
    return round(results.cost()["forward_images"] / COST_UNIT)


def _for_screen(figure: Figure) -> Figure:
    """A figure that can be read at the third of a page that TensorBoard gives it."""
    figure.set_size_inches(4.4, 3.4)
    figure.set_dpi(160)
    return figure
