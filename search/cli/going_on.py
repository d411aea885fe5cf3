"""What an interrupted command says: how to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.errors import SweepInterruptedError
from search.folders import SweepFolder
from search.interruption import raise_interrupted, was_interrupted
from search.wording import PROGRAM, command_text

AGAIN = "Interrupted. Run the command again."


@contextlib.contextmanager
def told_how_to_go_on(command: str, values: Mapping[str, Any]) -> Iterator[None]:
    """Say how to go on if a command with these values is interrupted.

    Raises:
        SweepInterruptedError: in place of `KeyboardInterrupt`.
    """
    try:
        yield
        if was_interrupted():  # while nothing could be ended
            raise_interrupted()
    except KeyboardInterrupt as error:
        folder = values.get("folder") or getattr(values.get("training"), "out", None)
        raise SweepInterruptedError(_how_to_go_on(command, folder)) from error


def _how_to_go_on(command: str, folder: Path | None) -> str:
    if folder is None:
        return AGAIN
    if command in ("sweep", "train", "resume") and SweepFolder(folder).request.is_file():
        return f"Interrupted. Continue: {command_text(PROGRAM, 'resume', folder.absolute())}"
    return AGAIN
