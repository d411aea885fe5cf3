"""Functions that users name: custom models, spaces, losses and attacks."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from generalist_core.config import CustomAttack, CustomLoss, ModelConfig, TrainConfig
from generalist_core.fingerprints import file_digest, source_digest
from generalist_core.validation import InvalidConfigError


def load_callable(name: str, *, what: str) -> Callable[..., object]:
    """The function that `FILE.py:FUNCTION` or `MODULE:FUNCTION` names. Runs that file's code.

    Raises:
        InvalidConfigError: the name is not of this form, or there is no such file or function.
    """
    place, _, function = name.rpartition(":")
    is_file = place.endswith(".py")
    if not place or (place.startswith(".") and not is_file):
        raise InvalidConfigError(
            f"`{what}` must be a built-in name or FILE.py:FUNCTION, but got {name!r}."
        )
    try:
        module = _load_file(Path(place)) if is_file else importlib.import_module(place)
    except (ImportError, FileNotFoundError, SyntaxError) as error:
        raise InvalidConfigError(
            f"`{what}` must be a built-in name or FILE.py:FUNCTION, but {name!r} cannot be loaded: "
            f"{error}."
        ) from error
    loaded: Callable[..., object] | None = getattr(module, function, None)
    if not callable(loaded):
        raise InvalidConfigError(
            f"`{what}` must be a built-in name or FILE.py:FUNCTION, but there is no function "
            f"{function!r} in {place}."
        )
    return loaded


def callable_name(function: Callable[..., object]) -> str:
    """The name `FILE.py:FUNCTION` by which `load_callable` finds a function.

    Raises:
        InvalidConfigError: the function is not at the top of a file.
    """
    name, place = getattr(function, "__qualname__", ""), inspect.getsourcefile(function)
    if place is None or not name.isidentifier():
        raise InvalidConfigError(
            f"A function must stand at the top of a file, but got {function!r}. Define it with "
            "`def` in a file, outside other functions."
        )
    return f"{Path(place).absolute()}:{name}"


def absolute_name(name: str) -> str:
    """The name `FILE.py:FUNCTION` with an absolute path; any other name as it is."""
    place, colon, function = name.rpartition(":")
    return f"{Path(place).absolute()}{colon}{function}" if place.endswith(".py") else name


def _load_file(path: Path) -> object:
    name = path.stem
    while name in sys.modules:  # which others still import by that name
        name += "_"
    spec = importlib.util.spec_from_file_location(name, os.path.realpath(path, strict=True))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass with postponed annotations looks its module up while it is defined. The entry must
    # not last: pickle would refer to classes by a name that other processes do not know.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules.pop(name, None)
    return module


Part = TypeVar("Part")


def pinned(config: TrainConfig, *, has_model: bool = False) -> TrainConfig:
    """The configuration with absolute paths to its custom functions, and digests of their files.

    So with the file of the weights to begin from. A model that no function makes stays as it is, as
    does any if the caller `has_model` in its place: its file may be gone.

    Raises:
        InvalidConfigError: a file cannot be read, or is not the one that was pinned before.
    """
    experts = tuple(expert.mapped(_pin, _pin) for expert in config.experts)
    attacks = tuple(
        replace(named, attack=_pin(named.attack)) for named in config.evaluation.attacks
    )
    evaluation = replace(config.evaluation, attacks=attacks)
    model = _pin_init(config.model if has_model else _pin_model(config.model))
    return replace(config, experts=experts, evaluation=evaluation, model=model)


def _pin(part: Part) -> Part:
    if not isinstance(part, CustomAttack | CustomLoss):
        return part
    function = absolute_name(part.function)
    return replace(part, function=function, digest=require_unchanged(function, part.digest))


def _pin_model(model: ModelConfig) -> ModelConfig:
    if ":" not in model.name or model.name.startswith("torchvision:"):
        return model
    name = absolute_name(model.name)
    return replace(model, name=name, digest=require_unchanged(name, model.digest))


def _pin_init(model: ModelConfig) -> ModelConfig:
    if model.init is None:
        return model
    path = Path(model.init).absolute()
    try:
        digest = file_digest(path)
    except (OSError, ValueError) as error:  # no path holds a null or half a pair of surrogates
        cause = error.strerror if isinstance(error, OSError) else error
        raise InvalidConfigError(
            f"`init` must be a file of weights, but got {model.init!r}: {cause}."
        ) from error
    require_pinned(str(path), digest, model.init_digest)
    return replace(model, init=str(path), init_digest=digest)


@functools.cache
def load_pinned(name: str, digest: str) -> Callable[..., Any]:
    """The function, loaded once per process, from the file with that digest if one is given."""
    function = load_callable(name, what="function")
    require_unchanged(name, digest)
    return function


def require_unchanged(name: str, pinned: str) -> str:
    """The digest of a function's file, checked against the digest `pinned` unless that is empty.

    Raises:
        InvalidConfigError: the file cannot be read, or it or what it imports beside it has changed.
    """
    digest = function_digest(name)
    require_pinned(name, digest, pinned, ", or one that it imports from its folder,")
    return digest


def require_pinned(name: str, digest: str, pinned: str, others: str = "") -> None:
    """Check the digest of a file against the digest `pinned`, unless that is empty.

    Raises:
        InvalidConfigError: the file has changed; the message names the file, and `others`.
    """
    if pinned not in ("", digest):
        raise InvalidConfigError(
            f"`{name}` must be as it was when the run began, but its file{others} has changed. Put "
            "the file back, or start a new run."
        )


def function_digest(name: str) -> str:
    """The digest of the file of `FILE.py:FUNCTION` or `MODULE:FUNCTION`; see `source_digest`.

    Raises:
        InvalidConfigError: there is no such file.
    """
    place = name.rpartition(":")[0]
    file = place if place.endswith(".py") else _file_of_module(place)
    try:
        return source_digest(Path(file))
    except OSError as error:
        raise InvalidConfigError(
            "A function must be FILE.py:FUNCTION or MODULE:FUNCTION, with a file that can be read, "
            f"but {name!r} has none: {error}."
        ) from error


def _file_of_module(name: str) -> str:
    """The file of a module, as far as it has one; the packages around it are imported for that."""
    try:
        spec = importlib.util.find_spec(name) if name else None
    except (ImportError, ValueError):
        spec = None
    except Exception as error:
        raise InvalidConfigError(f"`{name}` must be importable, but {described(error)}.") from error
    return (spec.origin if spec is not None else None) or name


@contextlib.contextmanager
def running_user_code(code: str) -> Iterator[None]:
    """Run code of the user, which the message calls `code`.

    Raises:
        InvalidConfigError: the code failed, with any error but an OSError, or would exit.
    """
    try:
        yield
    except (InvalidConfigError, OSError):
        raise
    except (Exception, SystemExit) as error:
        raise InvalidConfigError(f"`{code}` must run, but {described(error)}.") from error


def described(error: BaseException) -> str:
    """An error and the place where it was raised, on one line."""
    (*_, last) = traceback.extract_tb(error.__traceback__)
    message = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {message} ({Path(last.filename).name}, line {last.lineno})"
