"""A trial as a Ray Tune trainable: one actor trains one trial after another."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ray import tune

from generalist_core.codec import from_json
from generalist_core.config import TrainConfig
from generalist_core.data import Dataset
from generalist_core.models import ModelFactory
from search.files import write_json
from search.trial import TrialRun, point_to_dict
from search.warmups import WarmupConfig

CHECKPOINT = "checkpoint.pt"


class GeneralistTrainable(tune.Trainable):
    """Trains the configuration it is given; a step is an epoch.

    The last result has `done` and the released `points`. What goes wrong is written to
    `failure.json` in the trial's folder before it is raised, so that the driver can say why.
    """

    def setup(
        self,
        config: dict[str, Any],
        *,
        threads: int = 1,
        data: Dataset | None = None,
        model: ModelFactory | None = None,
        warmups: WarmupConfig | None = None,
    ) -> None:
        """Begin the first trial of this actor."""
        torch.set_num_threads(threads)
        self.data, self.model, self.warmups = data, model, warmups
        self.trial: TrialRun | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process: no start-up, and the data stay loaded."""
        self.cleanup()
        folder = Path(new_config["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        with recorded_failure(folder):
            config = from_json(new_config["config"], TrainConfig)
            store = self.warmups.open(owner=str(folder)) if self.warmups else None
            self.trial = TrialRun(folder, config, self.data, model=self.model, warmups=store)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; after the last one release the mixtures."""
        trial = self._running()
        with recorded_failure(trial.folder):
            metrics = trial.advance()
            if not trial.is_done:
                return metrics
            points = [point_to_dict(point) for point in trial.release()]
        return {**metrics, **trial.cost, "points": points, "done": True}

    def cleanup(self) -> None:
        """Let go of what the last trial holds."""
        if self.trial is not None:
            self.trial.close()
            self.trial = None

    def _running(self) -> TrialRun:
        assert self.trial is not None
        return self.trial

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write everything that `load_checkpoint` needs to go on."""
        self._running().save(Path(checkpoint_dir) / CHECKPOINT)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a folder that `save_checkpoint` wrote."""
        self._running().load(Path(checkpoint) / CHECKPOINT)


@contextlib.contextmanager
def recorded_failure(folder: Path) -> Iterator[None]:
    """Write why the block failed to `failure.json`, then let the error go on its way."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        write_json(folder / "failure.json", {"reason": reason, "traceback": traceback.format_exc()})
        raise
