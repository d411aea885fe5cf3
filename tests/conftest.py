"""One thread for every test: tiny tensors gain nothing from more, and bits stay comparable."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def kept_trace() -> Iterator[None]:
    """pyautoattack, called directly, ends tracing and with it the measurement of coverage."""
    trace = sys.gettrace()
    yield
    if sys.gettrace() is not trace:
        sys.settrace(trace)
