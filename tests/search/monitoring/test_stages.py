"""Something is on the screen at once."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from search.cli.main import main
from search.monitoring.stages import say_stage


def test_stages_are_said_on_a_terminal_alone() -> None:
    for is_terminal, said in ((True, "loading data ...\n"), (False, "")):
        file = io.StringIO()
        console = Console(file=file, force_terminal=is_terminal, color_system=None)
        say_stage(console, "loading data")
        assert file.getvalue() == said


def test_a_sweep_says_at_once_that_it_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "--data", "nothing-there"]
    assert main(words) == 2
    assert "starting" not in capsys.readouterr().err
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(words) == 2
    assert "starting ..." in capsys.readouterr().err.splitlines()[0]
