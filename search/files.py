"""Files that are complete or not there: each is written aside, flushed, then renamed."""

from __future__ import annotations

import io
import json
import os
import pickle
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from generalist_core.fingerprints import content_digest
from search.errors import SweepFolderError
from search.folders import SweepFolder

N_DIGEST = 32
"""Bytes of a SHA-256 digest."""


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: object) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part of it.

    Its mode is that of any new file, as the process's umask has it.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with aside.open("xb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """`torch.save` a state of tensors and plain values atomically."""
    write_bytes(path, _serialised(state))


def save_sealed(path: Path, state: Mapping[str, Any], seal: str) -> None:
    """As `save_tensors`, followed by a digest that binds the content to `seal`."""
    body = _serialised(state)
    write_bytes(path, body + _digest(seal, body))


def load_sealed(path: Path, seal: str) -> dict[str, Any] | None:
    """Load what `save_sealed` wrote; None if there is no such file.

    Raises:
        SweepFolderError: the digest does not match, or the file holds something else than tensors
            and plain values.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    body, digest = content[:-N_DIGEST], content[-N_DIGEST:]
    if digest != _digest(seal, body):
        raise SweepFolderError(f"{path} must be as it was written, but the digest does not match.")
    return _tensors(io.BytesIO(body), path)


def _serialised(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _digest(seal: str, body: bytes) -> bytes:
    return bytes.fromhex(content_digest(seal, body))


def load_tensors(path: Path) -> dict[str, Any]:
    """Load what `save_tensors` wrote; weights only, so that no file can run code.

    Raises:
        SweepFolderError: the file does not exist, is incomplete, or holds more than tensors and
            plain values.
    """
    return _tensors(path, path)


def _tensors(content: Path | io.BytesIO, path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SweepFolderError(f"{path} must exist, but does not.") from error
    except EOFError as error:
        raise SweepFolderError(f"{path} must hold only tensors, but is empty.") from error
    except RuntimeError as error:
        raise SweepFolderError(f"{path} must hold only tensors, but is damaged.") from error
    except pickle.UnpicklingError as error:
        raise SweepFolderError(
            f"{path} must hold only tensors, but holds something else, or code."
        ) from error
    return loaded


def read_json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file; `default`, if there is one, stands for a file that is missing.

    Raises:
        SweepFolderError: the file does not exist or is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if default is not None:
            return default
        raise SweepFolderError(f"{path} must exist, but does not. Is the folder right?") from error
    except ValueError as error:
        raise SweepFolderError(f"{path} must be JSON, but is damaged: {error}.") from error


def create_folder(path: Path) -> None:
    """Make a new output folder, or take an empty one, and check that it can be written.

    The lock of a sweep that was killed before it wrote anything is ignored.

    Raises:
        SweepFolderError: the folder is not empty, or cannot be written.
    """
    lock = SweepFolder(path).lock
    if path.is_dir() and any(inside != lock for inside in path.iterdir()):
        raise SweepFolderError(
            f"The output folder must be new or empty, but {path} holds files. Give another --out."
        )
    make_folder(path, "Give another --out.")


def make_folder(path: Path, cure: str) -> None:
    """Make a folder, or take an existing one, and check that it can be written.

    Raises:
        SweepFolderError: the folder cannot be written; the message ends with `cure`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_bytes(path / ".writable", b"")
        (path / ".writable").unlink()
    except OSError as error:
        raise SweepFolderError(
            f"A folder for output must be writable, but {path} is not: {error}. {cure}"
        ) from error


def disk_bytes(folder: Path) -> int:
    """The total size of all files in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)
