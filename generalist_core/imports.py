"""Functions that users name: their own models, spaces, losses and attacks."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path

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
