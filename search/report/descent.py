"""How the trials of a sweep descend from each other: which lineage each continues, and where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict
from search.study.records import TrialRecord
from spaces.lineages import LENGTH, START, lineage_params


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """The trial whose robust expert another continues as it was after `epochs` epochs."""

    trial: str
    epochs: int


def ancestors(records: Iterable[TrialRecord]) -> dict[str, Ancestor]:
    """The ancestor of each trial that continues a lineage.

    It is the first trial that left the lineage after as many epochs, or else after the most epochs
    that are fewer. Failed trials are nobody's ancestors, because they may have trained nothing.
    """
    lineages: dict[str, dict[int, str]] = {}
    found: dict[str, Ancestor] = {}
    for record in records:
        name = record.config and lineage_of(record.params, record.config)
        if not name:
            continue
        stages, start = lineages.setdefault(name, {}), record.params[START]
        reached = [epochs for epochs in stages if epochs <= start]
        if reached:
            found[record.trial] = Ancestor(trial=stages[max(reached)], epochs=max(reached))
        if record.state != "failed":
            stages.setdefault(start, record.trial)
    return found


def lineage_of(params: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """What all branches of a trial's lineage share, as JSON; None if it is not part of one.

    `config` is the JSON form of the trial's configuration.
    """
    if not {LENGTH, START} <= set(params):
        return None
    return json.dumps(lineage_params(params, from_dict(config, TrainConfig)), sort_keys=True)
