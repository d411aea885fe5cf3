"""Functions that users name: their own models, spaces, losses and attacks."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from generalist_core.config import CustomAttack, CustomLoss, TrainConfig
from generalist_core.fingerprints import file_digest
from generalist_core.validation import InvalidConfigError, require


def load_callable(name: str, *, what: str) -> Callable[..., object]:
    """The function that `FILE.py:FUNCTION` or `MODULE:FUNCTION` names. Runs that file's code.

    Raises:
        InvalidConfigError: not of this form, no such file, or no such function in it.
    """
    place, _, function = name.rpartition(":")
    known = f"`{what}` must be a built-in name or FILE.py:FUNCTION, but got {name!r}."
    if not place:
        raise InvalidConfigError(known)
    try:
        module = (
            _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    except (ImportError, FileNotFoundError, SyntaxError) as error:
        raise InvalidConfigError(f"{known} {error}") from error
    if not callable(getattr(module, function, None)):
        raise InvalidConfigError(f"{known} There is no function {function!r} in {place}.")
    found: Callable[..., object] = getattr(module, function)
    return found


def callable_name(function: Callable[..., object]) -> str:
    """The name `FILE.py:FUNCTION` by which `load_callable` finds a function.

    Raises:
        InvalidConfigError: it is not at the top of a file.
    """
    name, place = getattr(function, "__qualname__", ""), inspect.getsourcefile(function)
    cure = "Define it with `def` in a file, outside other functions."
    at_top = place is not None and name.isidentifier()
    require(at_top, "a function at the top of a file", f"{function!r}", cure)
    return f"{Path(str(place)).absolute()}:{name}"


def _load_file(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve(strict=True))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Part = TypeVar("Part")


def pinned(config: TrainConfig) -> TrainConfig:
    """The configuration with its own functions at absolute paths, and the digests of their files.

    Raises:
        InvalidConfigError: a file is not there, or is not the one that was pinned before.
    """
    experts = tuple(
        replace(expert, attack=_pin(expert.attack), loss=_pin(expert.loss))
        for expert in config.experts
    )
    attacks = tuple(
        replace(named, attack=_pin(named.attack)) for named in config.evaluation.attacks
    )
    evaluation = replace(config.evaluation, attacks=attacks)
    return replace(config, experts=experts, evaluation=evaluation)


def has_custom(*parts: object) -> bool:
    """Whether one of a configuration's parts is the user's own function."""
    return any(isinstance(part, CustomAttack | CustomLoss) for part in parts)


def _pin(part: Part) -> Part:
    if not isinstance(part, CustomAttack | CustomLoss):
        return part
    place, _, function = part.function.rpartition(":")
    if place.endswith(".py"):
        place = str(Path(place).absolute())
    digest = _file_digest(place)
    _require_unchanged(part.function, part.digest, digest)
    return replace(part, function=f"{place}:{function}", digest=digest)


@functools.cache
def load_pinned(name: str, digest: str) -> Callable[..., Any]:
    """The function, loaded once a process, from the file with that digest if one is given."""
    found = load_callable(name, what="function")
    _require_unchanged(name, digest, _file_digest(name.rpartition(":")[0]))
    return found


def _require_unchanged(name: str, pinned: str, digest: str) -> None:
    cure = "Put the file back, or begin anew."
    require(pinned in ("", digest), f"{name} as it was when the run began", "another file", cure)


def _file_digest(place: str) -> str:
    """The digest of a file, or of that of a module."""
    if not place.endswith(".py"):
        spec = importlib.util.find_spec(place) if place else None
        place = (spec.origin if spec is not None else None) or place
    try:
        return file_digest(Path(place))
    except OSError as error:
        law = "`function` must be FILE.py:FUNCTION or MODULE:FUNCTION"
        raise InvalidConfigError(f"{law}, but {place!r} cannot be read: {error}.") from error


@contextlib.contextmanager
def running_user_code(code: str) -> Iterator[None]:
    """Run what a user wrote; `code` names it.

    Raises:
        InvalidConfigError: instead of any error that is not one of ours.
    """
    try:
        yield
    except (InvalidConfigError, OSError):
        raise
    except Exception as error:
        raise InvalidConfigError(f"`{code}` must run, but {described(error)}.") from error


def described(error: Exception) -> str:
    """An error in a line, and where it was raised."""
    (*_, last) = traceback.extract_tb(error.__traceback__)
    said = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {said} ({Path(last.filename).name}, line {last.lineno})"
