"""Traces of torch's operations, which stand in for a GPU's recordings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from generalist_core.recording.steps import Replay


class Traces:
    """Records by tracing, in which all that Python decides is a constant, and counts.

    Unlike a GPU's recording, a trace runs the function.
    """

    def __init__(self) -> None:
        self.n_recorded = self.n_replayed = 0

    def trace(self, function: Callable[[], Tensor]) -> Replay:
        graph = make_fx(lambda: function())()  # noqa: PLW0108
        self.n_recorded += 1

        def replay() -> Tensor:
            self.n_replayed += 1
            with torch.no_grad():
                result: Tensor = graph()
            return result

        return replay
