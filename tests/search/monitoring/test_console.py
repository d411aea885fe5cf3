"""The progress of a sweep, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from benchmarks.simulator import SimulatedTrainer, World
from search.config import SweepConfig
from search.monitoring.console import Lines, LiveView, drawing, view_of
from search.scheduling.callbacks import Callback, Callbacks
from search.study.ledger import Ledger
from search.study.records import Proposal
from spaces import SPACES
from spaces.lineages import as_lineage
from tests.helpers.problems import with_expert
from tests.helpers.watched import BASE, new_ledger, refusing, watch

SPACE = SPACES["full"]


def request(**settings: Any) -> SweepConfig:
    return SweepConfig(base=BASE, **settings)


def terminal() -> Console:
    """A terminal of 80 columns that keeps what is written."""
    return Console(file=io.StringIO(), force_terminal=True, width=80, height=40, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawn(view: LiveView) -> list[str]:
    """The lines of a live view now."""
    console = terminal()
    console.print(view)
    return written(console).splitlines()


class Halfway(Callback):
    """Keeps a view as it is after six trials have ended; it is called after the view."""

    def __init__(self, view: LiveView) -> None:
        self.view = view
        self.lines: list[str] = []

    def _on_ended(self, *_: object) -> None:
        if self.view.counts.total == 6:
            self.lines = drawn(self.view)

    on_completed = on_failed = on_stopped = _on_ended


def watch_until_halfway(view: LiveView, ledger: Ledger, *, n_trials: int = 12) -> list[str]:
    """The lines of a view after six trials of a search."""
    halfway = Halfway(view)
    watch(Callbacks(view, halfway), ledger, SPACE, n_trials=n_trials)
    return halfway.lines


def test_the_live_view_shows_where_the_sweep_stands() -> None:
    ledger = new_ledger(SPACE)
    view = LiveView(terminal(), ledger.results, request(trials=12))
    assert "Ray is starting" in drawn(view)[3]
    halfway = watch_until_halfway(view, ledger)
    bar, counts, front, spent, *rest = halfway
    assert bar.endswith("6 of 12 trials")
    assert re.search(r"1 running .*0 failed", counts)
    assert "hypervolume 0." in front
    assert re.search(r"forward images .*elapsed, about .* left", spent)
    assert rest[0].startswith("running")
    assert re.search(r"epoch \d+/16", rest[0])
    assert any("stopped early after 1 epoch" in line for line in rest)
    end = drawn(view)
    assert f"{ledger.results.counts().completed} completed" in end[1]
    assert f"hypervolume {ledger.results.front().hypervolume:.4f}" in end[2]
    assert "left" not in end[3]
    assert all(len(line) <= 80 for line in (*halfway, *end))
    assert not any("…" in line for line in (bar, counts, front, spent))
    assert all(
        "hypervolume 0." in line for line in rest if "natural" in line and "running" not in line
    )


def test_the_time_left_is_no_more_than_the_budget() -> None:
    ledger = new_ledger(SPACE)
    view = LiveView(terminal(), ledger.results, request(trials=10**9, time_budget_s=100))
    halfway = watch_until_halfway(view, ledger, n_trials=8)
    assert re.search(r"about 0:01:(39|40) left", halfway[3])


def test_the_live_view_shows_what_is_left_of_the_budget() -> None:
    """The budget is such that the search ends after a quarter of it."""
    ledger = new_ledger(SPACE)
    watch(Callback(), ledger, SPACE)
    budget = 4 * ledger.results.cost()["forward_images"]
    left = re.escape(f"{0.75 * budget:.3g}")
    for trials, text in ((None, "12 trials"), (48, "12 of 48 trials")):
        view = LiveView(terminal(), ledger.results, request(trials=trials, budget=budget))
        bar = drawn(view)[0]
        assert re.search(rf"{text}, {left} images left$", bar)
        assert len(bar) <= 80
        filled = bar.split("  ")[0].count("━")
        view = LiveView(terminal(), ledger.results, request(trials=trials, budget=budget / 8))
        assert drawn(view)[0].endswith(", 0 images left")
        assert drawn(view)[0].count("━") >= filled > 0


def test_the_time_left_follows_what_was_done_of_the_budget() -> None:
    """A sweep that was resumed with a fifth of its budget spent counts from there."""
    ledger = new_ledger(SPACE)
    watch(Callback(), ledger, SPACE, n_trials=3)
    budget = 5 * ledger.results.cost()["forward_images"]
    view = LiveView(terminal(), ledger.results, request(trials=None, budget=budget))
    assert view.done_before == pytest.approx(0.2)
    view.began_at = view.opened_at
    assert "left" not in drawn(view)[3].partition("elapsed")[2]
    watch(view, ledger, SPACE, n_trials=6)
    view.ended_after_s, view.opened_at = None, time.monotonic() - 60
    view.began_at = view.opened_at
    spent = ledger.results.cost()["forward_images"] / budget
    expected = 60 * (1 - spent) / (spent - 0.2)
    left = re.search(r"about (\d+):(\d+):(\d+) left", drawn(view)[3])
    assert left is not None
    hours, minutes, seconds = map(int, left.groups())
    assert 3600 * hours + 60 * minutes + seconds == pytest.approx(expected, abs=2)


def test_a_live_view_is_drawn_on_a_terminal_and_lines_elsewhere() -> None:
    ledger = new_ledger(SPACE)
    kinds = {LiveView: terminal(), Lines: Console(file=io.StringIO())}
    for kind, console in kinds.items():
        view = view_of(console, ledger.results, request(trials=3))
        assert type(view) is kind
    assert type(view_of(Console(quiet=True), ledger.results, request(trials=3))) is Lines
    live = view_of(kinds[LiveView], ledger.results, request(trials=3))
    with drawing(live):
        watch(live, ledger, SPACE, n_trials=3)
    assert "3 of 3 trials" in written(kinds[LiveView])


def lines_of(console: Console, ledger: Ledger) -> list[str]:
    watch(Lines(console), ledger, refusing)
    return written(console).splitlines()


def test_one_line_per_event_where_there_is_no_terminal() -> None:
    ledger = new_ledger(refusing)
    lines = lines_of(Console(file=io.StringIO()), ledger)
    assert len(lines) == ledger.results.counts().total == 12
    assert all(re.match(r"trial \d{4}  ", line) for line in lines)
    assert sum("failed, invalid: " in line for line in lines) == ledger.results.counts().failed > 0
    assert not any("\x1b" in line for line in lines)


def test_accuracies_that_are_one_are_said_once() -> None:
    ledger, console = new_ledger(SPACE), Console(file=io.StringIO(), width=200)
    watch(Callback(), ledger, SPACE, n_trials=3)
    first, *_, last = sorted(ledger.results.points(), key=lambda point: point.accuracies["robust"])
    for points in ([first], [first, last]):
        Lines(console).on_completed("0000", points, ledger.results)
    one, two = written(console).splitlines()
    assert re.search(r"natural \d+\.\d %  robust \d+\.\d %", one)
    assert re.search(r"robust \d+\.\d-\d+\.\d %", two)


def test_a_quiet_console_says_nothing() -> None:
    assert lines_of(Console(file=io.StringIO(), quiet=True), new_ledger(refusing)) == []


def test_a_trial_is_done_to_where_an_expert_that_rests_need_not_train() -> None:
    """The natural warm-up is discarded, and the robust expert rests from epoch 3 of 5 on."""
    ledger = new_ledger(SPACE)
    view = LiveView(terminal(), ledger.results, request(trials=1))
    config = as_lineage(with_expert(BASE, "robust", rests=True), 3, 5)
    view.on_begun(Proposal(trial="0000", config=config, mixing_ratio=0.5, params={}))
    trainer = SimulatedTrainer(config, World())
    for epoch in range(1, 6):
        view.on_metrics("0000", trainer.train_epoch())
        assert view.snapshot.n_done == pytest.approx(epoch / 5)


def test_a_resumed_trial_is_shown_where_it_was_and_its_past_is_no_pace() -> None:
    ledger = new_ledger(SPACE)
    view, config = LiveView(terminal(), ledger.results, request(trials=1)), request(trials=1).base
    reached = {f"epoch/{expert.name}": config.epochs // 2 for expert in config.experts}
    view.on_metrics("0000", {"epoch": config.epochs // 2, **reached, "forward_images": 1.0})
    view.on_begun(Proposal(trial="0000", config=config, mixing_ratio=0.5, params={}))
    text = "\n".join(drawn(view))
    assert f"epoch {config.epochs // 2}/{config.epochs}" in text
    assert view.done_before == 0.5
    assert "left" not in text
