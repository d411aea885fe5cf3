"""A sweep in TensorBoard while it runs: one TensorBoard run per trial, and the run `sweep`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter

from generalist_core.training.evaluator import OperatingPoint
from search.front.front import hypervolume
from search.front.points import values_of
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
"""Forward images per step of the run `sweep`, as TensorBoard's steps are whole numbers."""

PICTURE_S = 15.0
"""Minimum time between two pictures of the front; drawing one takes a third of a second."""

ABOUT = f"""**One step is {COST_UNIT:,} forward images** of all trials that have ended (one forward
pass of one image counts 1, each gradient 1 more). For time, choose *Relative* or *Wall* as the
horizontal axis.

`sweep/hypervolume` is the hypervolume of the front on validation images. On the HParams page, the
objectives of a trial are those of one mixture, at the release ratio that the sampler asked for;
`curve` is the hypervolume of all its mixtures. Trials that were stopped or failed have neither."""


class TrialWriter:
    """Writes one trial's metrics to its TensorBoard run, by epoch."""

    def __init__(self, folder: Path, first_epoch: int = 1) -> None:
        """Open the run; if the trial is resumed, old records from `first_epoch` on are hidden."""
        self.writer = SummaryWriter(str(folder), flush_secs=5, purge_step=first_epoch)
        self.epoch = first_epoch

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Write the metrics with a group in their names, such as `loss/robust`, syncs, and cost."""
        self.epoch = latest_epoch(metrics)
        groups = ("accuracy/", "loss/", "lr/", "weight/")
        shown = {name: value for name, value in metrics.items() if name.startswith(groups)}
        for name, value in shown.items():
            self.writer.add_scalar(name, value, self.epoch)
        experts = [name.removeprefix("epoch/") for name in metrics if name.startswith("epoch/")]
        # An expert that warms up alone counts its own epochs: steps of a series must not decrease.
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
    """Writes the events of a sweep; the HParams page has `parameters` and `objectives` as columns.

    There a trial is called STUDY/TRIAL, as several sweeps may be shown together.

    Pictures are drawn in order in a thread, so that no worker waits for them.
    """

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, Choices],
        objectives: Sequence[str],
        *,
        study: str,
    ) -> None:
        self.folder = folder
        self.study = study
        self.parameters = dict(parameters)
        self.metrics = {
            name: f"{name} accuracy at the release ratio that the sampler asked for"
            for name in objectives
        }
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
        """Write its parameters; those not known before become new columns."""
        self.proposals[proposal.trial] = proposal
        if not proposal.params.keys() <= self.parameters.keys():
            self.parameters = with_seen(self.parameters, proposal.params)
            write_experiment(self.folder, self.parameters, self.metrics)
        run = self.folder / proposal.trial
        name = f"{self.study}/{proposal.trial}"
        write_start(run, name, proposal.params, self.parameters)

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """Write the metrics of a running trial."""
        if trial not in self.trials:
            self.trials[trial] = TrialWriter(self.folder / trial, latest_epoch(metrics))
        self.trials[trial].write(metrics)

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], results: Results) -> None:
        """Write the objectives of the trial, its release curve, and the state of the sweep."""
        writer, ratio = self.trials.get(trial), self.proposals[trial].mixing_ratio
        if writer is None:
            writer = self.trials[trial] = TrialWriter(self.folder / trial)
        asked = next(point for point in points if point.mixing_ratio == ratio)
        for name in results.objectives:
            writer.writer.add_scalar(f"{METRIC}/{name}", asked.accuracies[name], writer.epoch)
        volume = curve_hypervolume(points, results)
        writer.writer.add_scalar(f"{METRIC}/curve", volume, writer.epoch)
        self._paint(lambda: writer.release(points))
        self._on_ended(trial, results, "STATUS_SUCCESS")

    def on_failed(self, trial: str, failure: Failure, results: Results) -> None:  # noqa: ARG002
        """Count it as failed."""
        self._on_ended(trial, results, "STATUS_FAILURE")

    def on_stopped(self, trial: str, epoch: int, results: Results) -> None:  # noqa: ARG002
        """Count it as stopped early."""
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
        if (self.folder / trial).is_dir():  # otherwise it was rejected before it began
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
        """Draw the front if it has changed since it was last drawn."""
        front = results.front()
        names = tuple(point.name for point in front.points)
        if names != self._drawn:
            points, step = results.points(), _step(results)

            def draw() -> None:
                self.sweep.add_figure("front", _for_screen(front_plot(front, points)), step)

            self._paint(draw)
            self._drawn, self._drawn_at = names, time.monotonic()

    def _paint(self, work: Callable[[], None]) -> None:
        """Do this in the thread, after everything that was submitted before."""
        self._raise_errors()
        self._painted.append(self._painter.submit(work))

    def _raise_errors(self) -> None:
        """Raise the first error in drawing a picture."""
        while self._painted and self._painted[0].done():
            self._painted.popleft().result()


def curve_hypervolume(points: Sequence[OperatingPoint], results: Results) -> float:
    """The hypervolume of the points of one trial, above the floors of the sweep."""
    return hypervolume(values_of(points, results.objectives), results.reference)


def _step(results: Results) -> int:
    return round(results.cost()["forward_images"] / COST_UNIT)


def _for_screen(figure: Figure) -> Figure:
    """A figure that is readable in the third of a page that TensorBoard gives it."""
    figure.set_size_inches(4.4, 3.4)
    figure.set_dpi(160)
    return figure
