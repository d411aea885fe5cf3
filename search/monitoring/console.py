"""The progress of a sweep: a live view in a terminal, elsewhere one line per event."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any, cast, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from generalist_core.training.evaluator import OperatingPoint
from search.config import SweepConfig
from search.front.front import Front
from search.scheduling.callbacks import Callback
from search.study.failures import Failure
from search.study.records import Proposal, TrialCounts
from search.study.results import Results
from search.wording import plural, printable

log = logging.getLogger(__name__)

N_EVENTS = 8
"""Maximum number of events in the live view; the last ones are shown."""

N_RUNNING = 8
"""Maximum number of running trials in the live view."""


class ConsoleCallback(Callback, ABC):
    """Describes the end of each trial in one line; subclasses show it."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], results: Results) -> None:
        """Tell which accuracies a trial released, and the front that there is now."""
        ranges = []
        for name in results.objectives:
            values = [100 * point.accuracies[name] for point in points]
            ends = dict.fromkeys((f"{min(values):.1f}", f"{max(values):.1f}"))
            ranges.append(f"{name} {'-'.join(ends)} %")
        self.say(trial, f"{'  '.join(ranges)}  {front_text(results.front())}", "green")

    def on_failed(self, trial: str, failure: Failure, results: Results) -> None:  # noqa: ARG002
        """Tell why a trial failed."""
        self.say(trial, f"failed, {failure.kind}: {failure.reason}", "red")

    def on_stopped(self, trial: str, epoch: int, results: Results) -> None:  # noqa: ARG002
        """Tell that a trial was stopped early."""
        self.say(trial, f"stopped early after {plural(epoch, 'epoch')}", "yellow")

    @abstractmethod
    def say(self, trial: str, text: str, style: str) -> None:
        """Show how a trial ended, in a style of rich."""


@final
class Lines(ConsoleCallback):
    """Prints one line per event."""

    def say(self, trial: str, text: str, style: str) -> None:  # noqa: ARG002
        """Print how a trial ended."""
        line = printable(f"trial {trial}  {text}")
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of a sweep at its last event; another thread draws it."""

    counts: TrialCounts
    front: Front
    forward_images: float
    running: tuple[Text, ...]
    events: tuple[Text, ...]
    n_done: float
    """The number of trials that have ended, plus the done fraction of each running one."""


@final
class LiveView(ConsoleCallback):
    """Shows the state of a sweep, and is redrawn while it runs."""

    def __init__(self, console: Console, results: Results, config: SweepConfig) -> None:
        """Show a sweep; its time budget counts from now."""
        super().__init__(console)
        self.results = results
        self.config = config
        self.running: dict[str, Proposal] = {}
        self.metrics: dict[str, dict[str, Any]] = {}
        self.events: tuple[Text, ...] = ()
        self.opened_at = time.monotonic()
        self.began_at: float | None = None
        self.ended_after_s: float | None = None
        self._update_totals()
        self.done_before = self._fraction_of_sweep

    def on_begun(self, proposal: Proposal) -> None:
        """Show it among the running trials."""
        self.began_at, before = self.began_at or time.monotonic(), self._fraction_of_sweep
        self.running[proposal.trial] = proposal
        self._take_snapshot()
        self.done_before += self._fraction_of_sweep - before  # what it had trained before

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """Show its epoch, and the accuracies that were measured last."""
        self.metrics[trial] = {**self.metrics.get(trial, {}), **metrics}
        self._take_snapshot()

    def say(self, trial: str, text: str, style: str) -> None:
        """Show how a trial ended, and remove it from the running trials."""
        self.running.pop(trial, None)
        self.metrics.pop(trial, None)
        line = Text.assemble(
            (time.strftime("%H:%M:%S"), "dim"),
            f"  {trial}  ",
            (printable(text.split("\n", maxsplit=1)[0]), style),
        )
        self.events = (*self.events, line)[-N_EVENTS:]
        self._update_totals()

    def close(self) -> None:
        """Show the final state; trials that have not ended wait for `resume`, and are not shown."""
        self.ended_after_s = time.monotonic() - self.opened_at
        self.running.clear()
        self._take_snapshot()

    def _update_totals(self) -> None:
        self.counts, self.front = self.results.counts(), self.results.front()
        self.forward_images = self.results.cost()["forward_images"]
        self._take_snapshot()

    def _take_snapshot(self) -> None:
        n_partly_done = sum(self._fraction_done(trial) for trial in self.running)
        spent = [self.metrics.get(trial, {}).get("forward_images", 0) for trial in self.running]
        self.snapshot = Snapshot(
            counts=self.counts,
            front=self.front,
            forward_images=self.forward_images + sum(spent),
            running=tuple(self._running_line(trial) for trial in list(self.running)[-N_RUNNING:]),
            events=self.events,
            n_done=self.counts.total + n_partly_done,
        )

    def _fraction_done(self, trial: str) -> float:
        """The fraction of all experts' epochs of a running trial that are done, or need not be."""
        proposal, metrics = self.running[trial], self.metrics.get(trial, {})
        least = metrics.get("epoch", 0)
        done = [max(least, metrics.get(f"epoch/{e.name}", 0)) for e in proposal.config.experts]
        return float(sum(done)) / (len(done) * proposal.config.epochs)

    def _running_line(self, trial: str) -> Text:
        epochs, metrics = self.running[trial].config.epochs, self.metrics.get(trial, {})
        reached = [value for name, value in metrics.items() if name.startswith("epoch/")]
        last = [(name, metrics.get(f"accuracy/global/{name}")) for name in self.results.objectives]
        accuracies = [f"{name} {100 * value:.1f} %" for name, value in last if value is not None]
        text = f"epoch {max(reached, default=0):.0f}/{epochs}  {'  '.join(accuracies)}"
        return Text.assemble(("running ", "dim"), f"  {trial}  ", (text, "cyan"))

    def __rich__(self) -> RenderableType:
        """The whole view at this time."""
        now, counts = self.snapshot, self.snapshot.counts
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        bar.add_row(ProgressBar(total=1.0, completed=self._fraction_of_sweep), self._end_text())
        kinds = {
            "running": (len(self.running), "cyan"),
            "completed": (counts.completed, "green"),
            "stopped early": (counts.stopped_early, "yellow"),
            "failed": (counts.failed, "red"),
        }
        numbers = [(f"{n} {kind}   ", style if n else "dim") for kind, (n, style) in kinds.items()]
        spent = f"{now.forward_images:.3g} forward images   {self._time_text()}"
        lines = [
            Text.assemble(*numbers),
            Text(front_text(now.front), "bold"),
            Text(spent, "dim"),
            *now.running,
            *now.events,
        ]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(bar, *lines)

    @property
    def _fraction_of_sweep(self) -> float:
        """The fraction of the trials, or of the budget, that is done, whichever is larger."""
        trials, budget, now = self.config.trials, self.config.budget, self.snapshot
        of_trials = now.n_done / trials if trials else 0.0
        return min(1.0, max(of_trials, now.forward_images / budget if budget else 0.0))

    def _end_text(self) -> str:
        n, trials, budget = self.snapshot.counts.total, self.config.trials, self.config.budget
        left = (
            f", {max(0.0, budget - self.snapshot.forward_images):.3g} images left" if budget else ""
        )
        return (f"{n} of {trials} trials" if trials else plural(n, "trial")) + left

    def _time_text(self) -> str:
        """The elapsed time, and the time left: by the time budget and the pace of ended trials."""
        if self.ended_after_s is not None:
            return f"{_clock(self.ended_after_s)} elapsed"
        clock = time.monotonic()
        elapsed, left = clock - self.opened_at, None
        if self.began_at is None:
            return f"{_clock(elapsed)} elapsed, Ray is starting"
        if self.config.time_budget_s is not None:
            left = max(0.0, self.config.time_budget_s - (clock - self.began_at))
        done = self._fraction_of_sweep
        if done > self.done_before:
            by_pace = (clock - self.began_at) * (1 - done) / (done - self.done_before)
            left = by_pace if left is None else min(left, by_pace)
        return f"{_clock(elapsed)} elapsed" + (f", about {_clock(left)} left" if left else "")


def view_of(console: Console, results: Results, config: SweepConfig) -> ConsoleCallback:
    """A live view if the console is a terminal, else lines."""
    if console.is_terminal and not console.is_dumb_terminal and not console.quiet:
        return LiveView(console, results, config)
    return Lines(console)


@contextmanager
def drawing(view: ConsoleCallback) -> Iterator[None]:
    """Draw a live view a few times per second within the context; a terminal may disappear."""
    console, file = view.console, view.console.file
    console.file = cast(IO[str], _MayDisappear(file))
    drawn: AbstractContextManager[object] = nullcontext()
    if isinstance(view, LiveView):
        drawn = Live(view, console=console, redirect_stdout=False, redirect_stderr=False)
    try:
        with drawn:
            yield
    finally:
        console.file = file


class _MayDisappear:
    """A file to write to that may disappear, as a terminal or a pipe does when its reader ends."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._is_gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Write; from the first error on, do nothing."""
        self._unless_gone(lambda: self._file.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush; from the first error on, do nothing."""
        self._unless_gone(self._file.flush)

    def _unless_gone(self, work: Callable[[], object]) -> None:
        if self._is_gone:
            return
        try:
            work()
        except OSError as error:
            self._is_gone = True
            log.warning("Nothing more is shown, while the sweep goes on. The cause: %s", error)


def front_text(front: Front) -> str:
    """The hypervolume of a front first, because a narrow terminal cuts the end, then its size."""
    return f"hypervolume {front.hypervolume:.4f}, front of {plural(len(front.points), 'point')}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
