"""One thread for every test: tiny tensors gain nothing from more, and bits stay comparable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that at the end no process is left with one alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def kept_trace() -> Iterator[None]:
    """pyautoattack, called directly, ends tracing and with it the measurement of coverage."""
    trace = sys.gettrace()
    yield
    if sys.gettrace() is not trace:
        sys.settrace(trace)


@pytest.fixture(scope="session")
def two_trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep of `tiny_config()`, for tests to copy."""
    from tests.helpers.small_sweep import small_sweep
    from tests.helpers.tiny import tiny_config

    return small_sweep(tmp_path_factory.mktemp("two-trials") / "sweep", tiny_config()).folder
