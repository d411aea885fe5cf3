"""Files that are whole or not there: written aside, flushed, then renamed."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from search.errors import SweepFolderError


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: object) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """`torch.save` a state of tensors and plain values atomically."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def load_tensors(path: Path) -> dict[str, Any]:
    """What `save_tensors` wrote; loads weights only, so a foreign file cannot run code.

    Raises:
        SweepFolderError: no such file, torn, or one that holds more than tensors and plain values.
    """
    try:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SweepFolderError(f"{path} must exist, but does not.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise SweepFolderError(f"{path} must hold tensors alone, but: {reason}") from error
    return loaded


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        SweepFolderError: no such file, or torn.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SweepFolderError(f"{path} must exist, but does not. Is the folder right?") from error
    except json.JSONDecodeError as error:
        raise SweepFolderError(f"{path} must be JSON, but is damaged: {error}.") from error


def create_folder(path: Path) -> None:
    """Make a new output folder, or take an empty one, and check that it can be written.

    Raises:
        SweepFolderError: it holds something already, or cannot be written.
    """
    if path.is_dir() and any(path.iterdir()):
        raise SweepFolderError(
            f"The output folder must be new or empty, but {path} holds files. Give another --out."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_bytes(path / ".writable", b"")
        (path / ".writable").unlink()
    except OSError as error:
        raise SweepFolderError(
            f"The output folder must be writable, but {path} is not: {error}."
        ) from error
