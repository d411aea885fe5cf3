"""Warnings come once."""

from __future__ import annotations

import pytest

from generalist_core.once import warn_once


def test_a_warning_comes_once_about_each_thing(caplog: pytest.LogCaptureFixture) -> None:
    for message, about in [("a", ""), ("a", ""), ("b", ""), ("1 of c", "c"), ("2 of c", "c")]:
        warn_once(message, about)
    assert caplog.messages == ["a", "b", "1 of c"]
