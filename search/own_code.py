"""Code that a user brings: a space, a model. Its errors are said as such, with their place."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from generalist_core.validation import InvalidConfigError


@contextlib.contextmanager
def running_own(code: str) -> Iterator[None]:
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
