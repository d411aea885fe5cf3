"""What a sweep says while it runs: a live view in a terminal, else a line an event."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from generalist_core.training.evaluator import OperatingPoint
from search.front.front import Front
from search.scheduling.callbacks import Callback
from search.study.failures import Failure
from search.study.records import Proposal, TrialCounts
from search.study.results import Results

N_EVENTS = 8
"""How many events the live view shows, the last."""

N_RUNNING = 8
"""How many running trials it shows."""


class Lines(Callback):
    """Says what happens, a line an event."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], results: Results) -> None:
        """Say what a trial released and what the front is worth now."""
        ranges = []
        for name in results.objectives:
            values = [100 * point.accuracies[name] for point in points]
            ranges.append(f"{name} {min(values):.1f}-{max(values):.1f} %")
        self.say(trial, f"{'  '.join(ranges)}  {worth_text(results.front())}", "green")

    def on_failed(self, trial: str, failure: Failure, results: Results) -> None:  # noqa: ARG002
        """Say why a trial came to nothing."""
        self.say(trial, f"failed, {failure.kind}: {failure.reason}", "red")

    def on_stopped(self, trial: str, epoch: int, results: Results) -> None:  # noqa: ARG002
        """Say that a trial was stopped early."""
        self.say(trial, f"stopped early, after {epoch} epochs", "yellow")

    def say(self, trial: str, text: str, style: str) -> None:  # noqa: ARG002
        """Print an event of a trial."""
        self.console.print(f"trial {trial}  {text}", soft_wrap=True, markup=False, highlight=False)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a sweep stands, at its last event; what is drawn, by another thread."""

    counts: TrialCounts
    front: Front
    forward_images: float
    running: tuple[Text, ...]
    events: tuple[Text, ...]
    n_done: float
    """Trials that have ended, and what running ones have behind them as fractions."""


class LiveView(Lines):
    """Shows where a sweep stands, drawn anew as it goes on."""

    def __init__(
        self,
        console: Console,
        results: Results,
        *,
        n_trials: int,
        time_budget_s: float | None = None,
    ) -> None:
        """Show a sweep of `n_trials` in all; `time_budget_s` counts from now."""
        super().__init__(console)
        self.results = results
        self.n_trials = n_trials
        self.time_budget_s = time_budget_s
        self.running: dict[str, Proposal] = {}
        self.metrics: dict[str, dict[str, Any]] = {}
        self.events: tuple[Text, ...] = ()
        self.opened = time.monotonic()
        self.began: float | None = None
        self.ended_after_s: float | None = None
        self.n_before = results.counts().total
        self._count()

    def on_begun(self, proposal: Proposal) -> None:
        """Show it among the running ones."""
        self.began = self.began or time.monotonic()
        self.running[proposal.trial] = proposal
        self._stand()

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """Show how far it is, and the accuracies that were measured last."""
        self.metrics[trial] = {**self.metrics.get(trial, {}), **metrics}
        self._stand()

    def say(self, trial: str, text: str, style: str) -> None:
        """Show the event, and the trial no more."""
        self.running.pop(trial, None)
        self.metrics.pop(trial, None)
        line = Text.assemble(
            (time.strftime("%H:%M:%S"), "dim"),
            f"  {trial}  ",
            (text.split("\n", maxsplit=1)[0], style),
        )
        self.events = (*self.events, line)[-N_EVENTS:]
        self._count()

    def close(self) -> None:
        """Stand still: what has not ended waits for `resume`."""
        self.ended_after_s = time.monotonic() - self.opened
        self.running.clear()
        self._stand()

    def _count(self) -> None:
        self.counts, self.front = self.results.counts(), self.results.front()
        self.forward_images = self.results.cost()["forward_images"]
        self._stand()

    def _stand(self) -> None:
        parts = sum(self._part(trial) for trial in self.running)
        seen = [self.metrics.get(trial, {}).get("forward_images", 0) for trial in self.running]
        self.standing = Standing(
            counts=self.counts,
            front=self.front,
            forward_images=self.forward_images + sum(seen),
            running=tuple(self._row(trial) for trial in list(self.running)[-N_RUNNING:]),
            events=self.events,
            n_done=self.counts.total + parts,
        )

    def _part(self, trial: str) -> float:
        """How much of a running trial is done; experts that warm up one by one count alone."""
        proposal, metrics = self.running[trial], self.metrics.get(trial, {})
        done = [metrics.get(f"epoch/{e.name}", 0) for e in proposal.config.experts]
        return float(sum(done)) / (len(done) * proposal.config.epochs)

    def _row(self, trial: str) -> Text:
        epochs, metrics = self.running[trial].config.epochs, self.metrics.get(trial, {})
        reached = [value for name, value in metrics.items() if name.startswith("epoch/")]
        seen = [(name, metrics.get(f"accuracy/global/{name}")) for name in self.results.objectives]
        shown = [f"{name} {100 * value:.1f} %" for name, value in seen if value is not None]
        text = f"epoch {max(reached, default=0):.0f}/{epochs}  {'  '.join(shown)}"
        return Text.assemble(("running ", "dim"), f"  {trial}  ", (text, "cyan"))

    def __rich__(self) -> RenderableType:
        """The whole view, at this time."""
        now, counts = self.standing, self.standing.counts
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        n = f"{counts.total} of {self.n_trials} trials"
        bar.add_row(ProgressBar(total=max(1, self.n_trials), completed=now.n_done), n)
        kinds = {
            "running": (len(self.running), "cyan"),
            "completed": (counts.completed, "green"),
            "stopped early": (counts.stopped_early, "yellow"),
            "failed": (counts.failed, "red"),
        }
        shown = [(f"{n} {kind}   ", style if n else "dim") for kind, (n, style) in kinds.items()]
        spent = f"{now.forward_images:.3g} forward images   {self._time()}"
        lines = [
            Text.assemble(*shown),
            Text(worth_text(now.front), "bold"),
            Text(spent, "dim"),
            *now.running,
            *now.events,
        ]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(bar, *lines)

    def _time(self) -> str:
        """How long it has been, and how long it will be if a trial has ended to tell."""
        if self.ended_after_s is not None:
            return f"{_clock(self.ended_after_s)} passed"
        clock, now = time.monotonic(), self.standing
        passed, left = clock - self.opened, None
        if self.began is None:
            return f"{_clock(passed)} passed, Ray is starting"
        if self.time_budget_s is not None:
            left = max(0.0, self.time_budget_s - (clock - self.began))
        if now.counts.total > self.n_before:
            pace = (clock - self.began) / (now.n_done - self.n_before)
            by_pace = pace * max(0.0, self.n_trials - now.n_done)
            left = by_pace if left is None else min(left, by_pace)
        return f"{_clock(passed)} passed" + (f", about {_clock(left)} left" if left else "")


def view_of(
    console: Console, results: Results, *, n_trials: int, time_budget_s: float | None
) -> Lines:
    """A live view if the console is a terminal, else lines."""
    if console.is_terminal and not console.is_dumb_terminal and not console.quiet:
        return LiveView(console, results, n_trials=n_trials, time_budget_s=time_budget_s)
    return Lines(console)


@contextmanager
def shown(view: Lines) -> Iterator[None]:
    """Draw a live view, a few times a second, while inside."""
    if not isinstance(view, LiveView):
        yield
        return
    with Live(view, console=view.console, redirect_stdout=False, redirect_stderr=False):
        yield


def worth_text(front: Front) -> str:
    """What a front is worth, and how large it is: on a narrow terminal an end may be cut."""
    n = len(front.points)
    return f"hypervolume {front.hypervolume:.4f}, front of {n} point{'' if n == 1 else 's'}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
