"""Models of a sweep: the architecture, saved weights, and the mixtures on the front."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from torch import nn

from generalist_core.config import Ratio, TrainConfig, as_weights
from generalist_core.config.mixing import GLOBAL, Released
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory, build_model
from generalist_core.models.state import copied
from generalist_core.training.averaging import mix
from generalist_core.user_code import running_user_code
from search.errors import SweepFolderError
from search.files import is_sealed, load_sealed
from search.folders import SweepFolder
from search.front.front import Front

log = logging.getLogger(__name__)


def empty_model(config: TrainConfig, data: Dataset, model: ModelFactory | None) -> nn.Module:
    """A model of the architecture, to load weights into."""
    with running_user_code(f"model {config.model.name}"):
        if model is None:
            built = build_model(config.model, data.n_classes, data.shape, seed=config.seed)
        else:
            built = model(data.n_classes, data.shape)
    # the factory may return a model of the caller's, which must stay as it is
    return copied(built).eval()


def point_state(files: SweepFolder, trial: str, released: Released) -> dict[str, Any]:
    """The state dict of an operating point, from the averages of its trial.

    Raises:
        SweepFolderError: the averages are missing or damaged.
    """
    averages = None
    with contextlib.suppress(SweepFolderError):
        averages = load_sealed(files.trial(trial).averages, trial)
    if averages is None:
        raise _without_averages(files, trial)
    if released == GLOBAL:
        state: dict[str, Any] = averages[GLOBAL]
        return state
    return mixed_state(averages, released)


def warn_of_lost_averages(files: SweepFolder, front: Front) -> None:
    """Warn of each trial on the front whose averages are not as they were written."""
    for trial in sorted({point.trial for point in front.points}):
        try:
            require_averages(files, trial)
        except SweepFolderError as error:
            log.warning("%s", error)


def require_averages(files: SweepFolder, trial: str) -> None:
    """Check that the averages of a trial are as they were written; raises as `point_state` does."""
    path = files.trial(trial).averages
    if not (path.is_file() and is_sealed(path, trial)):
        raise _without_averages(files, trial)


def _without_averages(files: SweepFolder, trial: str) -> SweepFolderError:
    path = files.trial(trial).averages
    return SweepFolderError(
        f"{path} must hold the weights of trial {trial} as they were written, but "
        f"{'is damaged' if path.exists() else 'does not exist'}. Weights are kept for "
        "trials on the front; put back a copy of a file that was lost."
    )


def mixed_state(averages: dict[str, Any], ratio: Ratio) -> dict[str, Any]:
    """The state dict of a mixture of experts' averages, in the experts' order.

    The average of an expert without weight may be None; the global learner beside them is left out.
    """
    experts = [state for name, state in averages.items() if name != GLOBAL]
    weights = as_weights(ratio, len(experts))
    used = [(state, w) for state, w in zip(experts, weights, strict=True) if w != 0]
    names = list(used[0][0])
    mixed = mix([[state[name] for name in names] for state, _ in used], [w for _, w in used])
    return dict(zip(names, mixed, strict=True))
