"""Suggestions are timed."""

from __future__ import annotations

import sys

import pytest

from benchmarks import suggestion_time


@pytest.mark.slow
def test_a_line_is_printed_at_each_mark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suggestion_time, "MARKS", (2, 4))
    monkeypatch.setattr(sys, "argv", ["suggestion_time", "--trials", "5", "--sampler", "random"])
    suggestion_time.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["2", "trials"], ["4", "trials"]]
