"""What a sweep says, on a terminal and elsewhere, and where others' noise goes."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from search.monitoring.console import Lines, LiveView, shown, view_of
from search.study.ledger import Ledger
from spaces import SPACES
from tests import ROOT
from tests.helpers.watched import new_ledger, refusing, watch

SPACE = SPACES["full"]


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


class Halfway(LiveView):
    """Keeps the view as it was when six trials had ended."""

    lines: list[str]

    def say(self, trial: str, text: str, style: str) -> None:
        super().say(trial, text, style)
        if self.counts.total == 6:
            self.lines = drawn(self)


def test_the_live_view_shows_where_the_sweep_stands() -> None:
    ledger = new_ledger(SPACE)
    view = Halfway(terminal(), ledger.results, n_trials=12)
    assert "Ray is starting" in drawn(view)[3]
    watch(view, ledger, SPACE)
    bar, counts, worth, spent, *rest = view.lines
    assert bar.endswith("6 of 12 trials")
    assert re.search(r"1 running .*0 failed", counts)
    assert "hypervolume 0." in worth
    assert re.search(r"forward images .*passed, about .* left", spent)
    assert rest[0].startswith("running")
    assert re.search(r"epoch \d+/16", rest[0])
    assert any("stopped early, after 1 epochs" in line for line in rest)
    end = drawn(view)
    assert f"{ledger.results.counts().completed} completed" in end[1]
    assert f"hypervolume {ledger.results.front().hypervolume:.4f}" in end[2]
    assert "left" not in end[3]
    assert all(len(line) <= 80 for line in (*view.lines, *end))
    assert not any("…" in line for line in (bar, counts, worth, spent))
    assert all(
        "hypervolume 0." in line for line in rest if "natural" in line and "running" not in line
    )


def test_the_time_left_is_no_more_than_the_budget() -> None:
    ledger = new_ledger(SPACE)
    view = Halfway(terminal(), ledger.results, n_trials=10**9, time_budget_s=100)
    watch(view, ledger, SPACE, n_trials=8)
    assert re.search(r"about 0:01:(39|40) left", view.lines[3])


def test_a_live_view_is_drawn_on_a_terminal_and_lines_elsewhere() -> None:
    ledger = new_ledger(SPACE)
    kinds = {
        LiveView: terminal(),
        Lines: Console(file=io.StringIO()),
    }
    for kind, console in kinds.items():
        view = view_of(console, ledger.results, n_trials=3, time_budget_s=None)
        assert type(view) is kind
    assert (
        type(view_of(Console(quiet=True), ledger.results, n_trials=3, time_budget_s=None)) is Lines
    )
    live = view_of(kinds[LiveView], ledger.results, n_trials=3, time_budget_s=None)
    with shown(live):
        watch(live, ledger, SPACE, n_trials=3)
    assert "3 of 3 trials" in written(kinds[LiveView])


def lines_of(console: Console, ledger: Ledger) -> list[str]:
    watch(Lines(console), ledger, refusing)
    return written(console).splitlines()


def test_a_line_an_event_where_there_is_no_terminal() -> None:
    ledger = new_ledger(refusing)
    lines = lines_of(Console(file=io.StringIO()), ledger)
    assert len(lines) == ledger.results.counts().total == 12
    assert all(re.match(r"trial \d{4}  ", line) for line in lines)
    assert sum("failed, invalid: " in line for line in lines) == ledger.results.counts().failed > 0
    assert not any("\x1b" in line for line in lines)


def test_a_quiet_console_says_nothing() -> None:
    assert lines_of(Console(file=io.StringIO(), quiet=True), new_ledger(refusing)) == []


NOISY = """
import logging, os, sys, warnings
from pathlib import Path
from rich.console import Console
from search.monitoring.log import logged_to

with logged_to(Path(sys.argv[1]), console := Console(stderr=True)):
    os.write(2, b"of a C++ library\\n")
    print("of a library, misplaced")
    logging.getLogger("optuna").warning("of Optuna")
    warnings.warn("of Python")
    logging.getLogger("search.running.trial").warning("of ours [a]")
    console.print("progress")
print("result")
raise SystemExit("an error")
"""


@pytest.mark.slow
def test_noise_is_kept_and_our_own_words_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = subprocess.run(
        [sys.executable, "-c", NOISY, str(log)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "result\n"
    assert done.stderr == "of ours [a]\nprogress\nan error\n"
    kept = log.read_text()
    for noise in ("of a C++ library", "misplaced", "of Optuna", "of Python", "of ours [a]"):
        assert kept.count(noise) >= 1
    assert "progress" not in kept
