"""Callbacks."""

from __future__ import annotations

import inspect
import logging

import pytest

from search.scheduling.callbacks import Callback, Callbacks, MayFail
from tests.helpers.ledgers import PLANTED, release
from tests.helpers.searches import Noting, proposed, searcher

METHODS = [name for name in vars(Callback) if not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_all_methods_reach_all_callbacks(name: str) -> None:
    assert inspect.signature(getattr(Callbacks, name)) == inspect.signature(getattr(Callback, name))
    assert name in vars(Callbacks)


def call_all(callback: Callback) -> None:
    searching = searcher()
    proposal, results = proposed(searching), searching.ledger.results
    callback.on_begun(proposal)
    callback.on_metrics(proposal.trial, {})
    callback.on_completed(proposal.trial, release(proposal), results)
    callback.on_failed(proposal.trial, PLANTED, results)
    callback.on_stopped(proposal.trial, 3, results)
    callback.close()


def test_each_callback_is_told_everything_in_order() -> None:
    callbacks = [Noting(), Noting(), Noting()]
    *others, watching = callbacks
    call_all(Callbacks(*others, watchers=[MayFail("Notes", lambda: watching)]))
    expected = ["begun", "metrics", "completed", "failed", "stopped after 3", "closed"]
    for callback in callbacks:
        assert [what for what, _ in callback.told] == expected


def test_by_default_a_callback_does_nothing() -> None:
    call_all(Callback())


@pytest.mark.parametrize("name", METHODS)
def test_a_callback_that_only_watches_fails_once(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing, after = Noting(), Noting()

    def fail(*_: object) -> None:
        raise OSError("planted")

    monkeypatch.setattr(failing, name, fail)
    call_all(Callbacks(watchers=[MayFail("The view", lambda: failing), MayFail("", lambda: after)]))
    assert len(failing.told) == METHODS.index(name)
    assert len(after.told) == len(METHODS)
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert said.getMessage().startswith("The view has stopped")
    assert said.getMessage().endswith("OSError: planted")


def test_a_callback_that_only_watches_may_fail_to_begin(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Callback:
        raise NotADirectoryError("planted")

    call_all(Callbacks(watchers=[MayFail("TensorBoard", fail)]))
    assert (
        caplog.text.count("NotADirectoryError: planted") == 2
    )  # in the message, and its traceback
