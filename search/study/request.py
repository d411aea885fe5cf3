"""The request of a sweep as its study records it, so that a change of `sweep.json` is seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna

from generalist_core.config.codec import from_dict, to_dict
from generalist_core.validation import excerpt
from search.config import SweepConfig
from search.errors import SweepFolderError
from search.wording import PROGRAM, command_text

CHANGEABLE = ("trials", "budget", "time_budget_s", "resources", "limits", "stop_when")
"""The settings of a request that may change: none of them changes what a trial results in."""

_BESIDE = ("custom", "pins")
"""What a record holds beside the request."""

_KEY = "request"
"""The attribute of the study: the requests that `sweep.json` may hold, the newest last."""


def what_counts(document: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a `sweep.json` that its study records, as plain JSON with all defaults.

    Left out are the environment, and the storage, which may move and have another password: that it
    is the right one is shown by the study in it.
    """
    request = to_dict(from_dict(document["request"], SweepConfig))
    del request["storage"]
    return {**request, "custom": document["custom"], "pins": document.get("pins", {})}


def record(study: optuna.Study, document: Mapping[str, Any], *, will_be: bool = False) -> None:
    """Record in the study what `sweep.json` holds, or also what it `will_be`.

    To change the request, record what it will be, write the file, and record what it is: then a
    crash at any moment leaves a file that the study knows.
    """
    earlier = study.user_attrs.get(_KEY, []) if will_be else []
    study.set_user_attr(_KEY, [*earlier, what_counts(document)])


def is_recorded(study: optuna.Study, document: Mapping[str, Any]) -> bool:
    """Whether this, and nothing else, is recorded in the study."""
    return _recorded(study) == [what_counts(document)]


def _recorded(study: optuna.Study) -> list[dict[str, Any]]:
    """The records of the study; fields that an earlier version did not have get their defaults."""
    records = []
    for recorded in study.user_attrs.get(_KEY, []):
        beside = {name: recorded[name] for name in _BESIDE}
        request = {name: value for name, value in recorded.items() if name not in beside}
        records.append(what_counts({"request": request, **beside}))
    return records


def require_recorded(
    path: Path, document: Mapping[str, Any], study: optuna.Study, *, accept: bool = False
) -> None:
    """Check that the `sweep.json` at `path` holds a request that the study records.

    A study without such a record is that of a sweep that did not get to begin, or of an earlier
    version; it accepts any request.

    Args:
        path: the file.
        document: its content.
        study: the study of the sweep.
        accept: whether settings that are `CHANGEABLE` may differ.

    Raises:
        SweepFolderError: the request has changed; the message says what was and what is.
    """
    recorded, now = _recorded(study), what_counts(document)
    if not recorded or now in recorded:
        return
    changes = list(_changes(recorded[-1], now))
    can_accept = all(name.split(".")[0] in CHANGEABLE for name, _, _ in changes)
    if accept and can_accept:
        return
    found = "; ".join(
        f"{name} was {excerpt(before)} and is {excerpt(after)}" for name, before, after in changes
    )
    command = command_text(PROGRAM, "resume", path.parent, "--accept")
    cure = f"accept it: {command}" if can_accept else "begin a new sweep"
    raise SweepFolderError(
        f"{path} must hold the request that the sweep was begun or resumed with, but {found}. Put "
        f"back what was, or {cure}."
    )


def _changes(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The dotted path of each value that differs, the value before, and the value after."""
    old, new = _members(before), _members(after)
    if old is None or new is None:
        if before != after:
            yield path, before, after
        return
    for name in dict.fromkeys([*old, *new]):
        inside = f"{path}.{name}" if path else name
        yield from _changes(old.get(name), new.get(name), inside)


def _members(value: Any) -> dict[str, Any] | None:
    """The members of an object or a list; those of a list by their names, if they have any."""
    if isinstance(value, list):
        named = enumerate(value)
        return {str(m.get("name", i) if isinstance(m, dict) else i): m for i, m in named}
    return value if isinstance(value, dict) else None
