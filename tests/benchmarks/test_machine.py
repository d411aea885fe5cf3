"""Clocks and the description of the machine."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.machine import clock, dense_rate, environment, peak_mib, seconds

CPU = torch.device("cpu")


@pytest.mark.parametrize(("threads", "expected"), [(1, "processor"), (2, "wall")])
def test_one_thread_is_measured_by_processor_time(
    threads: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert environment(CPU)["clock"] == expected
    assert clock(CPU) is (time.process_time if threads == 1 else time.perf_counter)


def test_wall_time_includes_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert 0.01 <= seconds(lambda: time.sleep(0.01), CPU) < 10


def test_a_cpu_has_no_figures_of_a_gpu() -> None:
    assert dense_rate(CPU) is None
    assert peak_mib(lambda: None, CPU) is None
