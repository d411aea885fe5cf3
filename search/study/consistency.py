"""Whether a study is one that a ledger wrote: every trial once, and complete if it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.errors import SweepFolderError
from search.study.trials import name_of

ENDED: dict[TrialState, dict[str, Any]] = {
    TrialState.COMPLETE: {"cost": dict, "config": dict, "points": list},
    TrialState.PRUNED: {"cost": dict, "config": dict, "stopped_at": int},
    TrialState.FAIL: {"cost": dict, "failure": dict},
}
"""The attributes of a trial that ended in this way."""

POINT = {"mixing_ratio": int | float | list | tuple, "n_images": int, "epoch": int}
"""The attributes of a completed trial and of each of its siblings."""


def require_consistent(trials: Iterable[FrozenTrial]) -> None:
    """Check all trials of a study.

    Raises:
        SweepFolderError: a trial, its end or its point is there twice; a sibling has no trial; or a
            trial lacks an attribute.
    """
    seen: dict[str, int] = {}
    for trial in trials:
        needed = _needed(trial)
        wrong = [key for key in needed if not isinstance(trial.user_attrs.get(key), needed[key])]
        if wrong:
            raise SweepFolderError(
                f"Trials must be as the sweep wrote them, but trial {trial.number} of the study "
                f"has no valid {', '.join(wrong)}. Restore the study from a copy."
            )
        if "sibling" in trial.user_attrs and f"trial {trial.user_attrs['trial']}" not in seen:
            raise SweepFolderError(
                f"A point must follow its trial, but trial {trial.user_attrs['trial']} of trial "
                f"{trial.number} of the study is not there. Restore the study from a copy."
            )
        for what in _unique(trial):
            if what in seen:
                raise SweepFolderError(
                    f"A study must have each trial once, but its trials {seen[what]} and "
                    f"{trial.number} are both {what}. Restore the study from a copy."
                )
            seen[what] = trial.number


def _needed(trial: FrozenTrial) -> dict[str, Any]:
    """The attributes that a trial must have, and their types."""
    attributes, has_ended = trial.user_attrs, trial.state.is_finished()
    needed: dict[str, Any] = {}
    if "origin" in attributes:
        return needed
    if name_of(trial) is not None:
        needed |= {"asked_after": int, **(ENDED[trial.state] if has_ended else {})}
    if has_ended:
        needed |= {"trial": str, "told_as": int}
    if trial.state == TrialState.COMPLETE:
        needed |= POINT
    return needed


def _unique(trial: FrozenTrial) -> Iterator[str]:
    """What no other trial of the study may be."""
    attributes, name = trial.user_attrs, name_of(trial)
    if name is not None:
        yield f"trial {name}"
    if name is not None and trial.state.is_finished():
        yield f"number {attributes['told_as']} to end"
    if trial.state == TrialState.COMPLETE and "origin" not in attributes:
        yield f"point {attributes['trial']}-{attributes['mixing_ratio']}"
