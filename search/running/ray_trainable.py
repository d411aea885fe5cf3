"""A trial as a Ray Tune trainable: one actor trains one trial after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_json
from search.running.worker import Worker


class GeneralistTrainable(tune.Trainable):
    """Trains the configuration it is given; a step is an epoch.

    Whatever fails in a trial is in its last result. So what Ray sees as an error is the death of
    the worker, and whoever takes its place goes on from the checkpoint in the trial's folder.
    """

    def setup(self, config: dict[str, Any], **worker: Any) -> None:
        """Begin the first trial of this actor; `worker` has the arguments of a `Worker`."""
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
        """Let go of what the last trial holds."""
        self.worker.close()
