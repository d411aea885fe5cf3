"""How the trials of a sweep descend from each other: which lineage each continues, and where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from generalist_core.config import Constant, TrainConfig
from generalist_core.config.codec import from_dict, to_dict
from search.study.records import TrialRecord
from spaces.lineages import LENGTH, START, lineage_params, robust_of


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """The trial whose robust expert another continues as it was after `epochs` epochs."""

    trial: str
    epochs: int


def ancestors(records: Iterable[TrialRecord]) -> dict[str, Ancestor]:
    """The ancestor of each trial that continues a lineage.

    It is the first trial that left the lineage after as many epochs, or else after the most epochs
    that are fewer; where other settings took over, also those of the lineage before. Failed trials
    are nobody's ancestors, because they may have trained nothing.
    """
    lineages: dict[str, dict[int, str]] = {}
    found: dict[str, Ancestor] = {}
    for record in records:
        if not _is_branch(record.params) or record.config is None:
            continue
        whole = list(_lineages(record.params, from_dict(record.config, TrainConfig)))
        for name, end in whole:
            stages = lineages.get(name, {})
            reached = [epochs for epochs in stages if epochs <= end]
            if reached:
                found[record.trial] = Ancestor(trial=stages[max(reached)], epochs=max(reached))
                break
        if record.state != "failed":
            name, start = whole[0]
            lineages.setdefault(name, {}).setdefault(start, record.trial)
    return found


def lineage_of(params: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """What all branches of a trial's lineage share, as JSON; None if it is not part of one.

    `config` is the JSON form of the trial's configuration.
    """
    if not _is_branch(params):
        return None
    return next(_lineages(params, from_dict(config, TrainConfig)))[0]


def _is_branch(params: Mapping[str, Any]) -> bool:
    return {LENGTH, START} <= set(params)


def _lineages(params: Mapping[str, Any], config: TrainConfig) -> Iterator[tuple[str, int]]:
    """The lineage, and those before its settings changed, each with the epochs it was trained."""
    whole = replace(robust_of(config), schedule=Constant(), rests=False)
    path = f"experts.{whole.name}."
    beside = {n: v for n, v in lineage_params(params, config).items() if not n.startswith(path)}
    ends = [*(past.until for past in whole.earlier), config.sync.start_epoch]
    for number, end in reversed(list(enumerate(ends))):
        robust = replace(whole.at(end - 1), earlier=whole.earlier[:number])
        yield json.dumps([to_dict(robust), beside], sort_keys=True), end
