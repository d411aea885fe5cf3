"""A trial as a trainable of Ray Tune: one actor trains one trial after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_json
from generalist_core.device import limit_gpu_memory
from search.running.worker import Worker


class GeneralistTrainable(tune.Trainable):
    """Trains the configuration that it is given; a step is an epoch.

    Any failure of a trial is part of its last result. An error that Ray sees is therefore the death
    of the worker; the next worker resumes from the checkpoint in the trial's folder.
    """

    def setup(self, config: dict[str, Any], *, gpu_fraction: float = 1.0, **worker: Any) -> None:
        """Begin the first trial of this actor; `worker` holds the arguments of a `Worker`."""
        limit_gpu_memory(gpu_fraction)
        self.worker = Worker(**worker)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        asked = from_json(new_config["config"], TrainConfig)
        self.worker.begin(Path(new_config["folder"]), asked)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; after the last one release the mixtures."""
        return self.worker.step()

    def cleanup(self) -> None:
        """Release what the last trial holds."""
        self.worker.close()
