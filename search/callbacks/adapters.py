"""What the adapters have in common: the import of a library, and what they record of a trial."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.config.codec import to_dict
from generalist_core.fingerprints import json_digest
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.validation import InvalidConfigError
from search.study.records import Proposal
from search.study.results import Results


def library(name: str) -> Any:
    """A library that is an extra of this project.

    Raises:
        InvalidConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidConfigError(
            f"`{name}` must be installed for this callback, but: {error}. Install it with "
            f"pip install 'generalist-search[{name}]'."
        ) from error


def key_of(proposal: Proposal) -> str:
    """Names a trial among those of all sweeps; the same after a `resume`."""
    return f"{proposal.trial}-{json_digest(to_dict(proposal.config))[:12]}"


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers in the metrics of an epoch, without those of the epochs themselves.

    MLflow's file store cannot have both `epoch` and `epoch/robust`, as the first is a file.
    """
    return {
        name: float(value)
        for name, value in metrics.items()
        if name.split("/")[0] != "epoch" and isinstance(value, int | float) and math.isfinite(value)
    }


def outcome_of(points: Sequence[OperatingPoint], results: Results) -> dict[str, float]:
    """The best accuracies of a trial's points, and the hypervolume of the front with them."""
    best = {f"best/{n}": max(p.accuracies[n] for p in points) for n in results.objectives}
    return {**best, "front/hypervolume": results.front().hypervolume}
