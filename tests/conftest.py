"""One thread for every test and all that it starts, one Ray for many tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Tiny tensors gain nothing from more threads, and bits stay comparable. Set before torch starts.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import pytest
import torch

from generalist_core import once

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


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test has a warning left out because another one had it."""
    monkeypatch.setattr(once, "_said", set())


@pytest.fixture(scope="module")
def local_ray() -> None:
    """A Ray with two CPUs that all tests of this process share; it ends with the process."""
    import ray

    if not ray.is_initialized():
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": 40}
        ray.init("local", num_cpus=2, **quiet)


@pytest.fixture
def no_ray() -> None:
    """For tests that start a Ray themselves, or whose subject is that none runs."""
    if "ray" in sys.modules:
        import ray

        ray.shutdown()


@pytest.fixture(scope="session")
def two_trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep of `tiny_config()`, for tests to copy."""
    from tests.helpers.small_sweep import small_sweep
    from tests.helpers.tiny import tiny_config

    return small_sweep(tmp_path_factory.mktemp("two-trials") / "sweep", tiny_config()).folder
