"""Files that are complete or not there: each is written aside, flushed, then renamed."""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist_core.fingerprints import content_digest, json_digest, tensor_bytes
from generalist_core.models.weights import tensors_in
from generalist_core.once import warn_once
from generalist_core.validation import InvalidConfigError
from search.errors import SweepFolderError
from search.folders import SweepFolder
from search.wording import PROGRAM, command_text

SEAL, N_DIGEST = b"sha256:", 64
"""What stands before a digest at the end of a file, and the digits of the digest."""

N_SEAL = len(SEAL) + N_DIGEST

_CHANGED = "{path} must be as it was written, but the digest does not match."


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
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()  # where a file belongs, it is nobody's
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_sealed(path: Path, state: Mapping[str, Any], seal: str = "") -> None:
    """Save a state of tensors and plain values atomically, see `sealed`, for `load_sealed`.

    Tensors that are equal in every bit are in the file once: the average of an expert is also its
    contribution to the global learner, most often.
    """
    first: dict[str, Tensor] = {}

    def once(tensor: Tensor) -> Tensor:
        kind = f"{tensor.stride()}"
        return first.setdefault(content_digest(kind, tensor_bytes(tensor)), tensor)

    write_bytes(path, sealed(_with_tensors(state, once), seal))


def sealed(state: Mapping[str, Any], seal: str = "") -> bytes:
    """What `torch.save` writes of a state, and a digest that binds it to `seal`.

    The digest is the comment of the ZIP file, which plain `torch.load` skips.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(-2, io.SEEK_END)
    buffer.write((N_SEAL + len(seal.encode())).to_bytes(2, "little"))
    buffer.write(SEAL + _digest(seal, buffer.getvalue()) + seal.encode())
    return buffer.getvalue()


def is_sealed(path: Path, seal: str = "") -> bool:
    """Whether there is a file as `save_sealed` wrote it with `seal`."""
    return path.is_file() and _seal_of(path.read_bytes()) == seal


def load_sealed(path: Path, seal: str = "") -> dict[str, Any] | None:
    """Load what `save_sealed` wrote with `seal`; None if there is no such file.

    No two of its tensors share memory, whether they are equal or not.

    Raises:
        SweepFolderError: the digest does not match, or the file holds something else than tensors
            and plain values.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if _seal_of(content) != seal:
        raise SweepFolderError(_CHANGED.format(path=path))
    seen = set[int]()

    def apart(tensor: Tensor) -> Tensor:
        if id(tensor) in seen:
            return tensor.clone()
        seen.add(id(tensor))
        return tensor

    loaded = _tensors(content, path)
    separate: dict[str, Any] = _with_tensors(loaded, apart)
    return separate


def _with_tensors(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Plain values, lists, tuples and dictionaries as they are, with `change` of each tensor."""
    match tree:
        case Tensor():
            return change(tree)
        case Mapping():
            return {name: _with_tensors(value, change) for name, value in tree.items()}
        case list() | tuple() if not isinstance(tree, torch.Size):
            return type(tree)(_with_tensors(value, change) for value in tree)
    return tree


def load_tensors(path: Path) -> dict[str, Any]:
    """Load a file of torch, sealed or not; weights only, so that no file can run code.

    Raises:
        SweepFolderError: the file does not exist, has a digest that does not match, is incomplete,
            or holds more than tensors and plain values.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise SweepFolderError(f"{path} must exist, but does not.") from error
    if _parts(content) and _seal_of(content) is None:
        raise SweepFolderError(_CHANGED.format(path=path))
    return _tensors(content, path)


def _tensors(content: bytes, path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = tensors_in(content, path)
    except InvalidConfigError as error:
        raise SweepFolderError(str(error)) from error
    return loaded


def _parts(content: bytes) -> tuple[bytes, bytes, str] | None:
    """The content, the digest and the seal of a sealed file; None if it is none."""
    body, mark, comment = content.rpartition(SEAL)
    if not mark or body[-22:-18] != b"PK\5\6":  # the end of a ZIP file
        return None
    return body, comment[:N_DIGEST], comment[N_DIGEST:].decode(errors="replace")


def _seal_of(content: bytes) -> str | None:
    """The seal of an intact file; None if it is damaged, or has no digest."""
    if (parts := _parts(content)) is None:
        return None
    body, digest, seal = parts
    return seal if digest == _digest(seal, body) else None


def _digest(seal: str, body: bytes) -> bytes:
    return content_digest(seal, body).encode()


def write_sealed_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with the digest of its content as `digest`."""
    write_json(path, _with_digest(document))


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The content of what `write_sealed_json` wrote.

    Raises:
        SweepFolderError: the file does not exist, or is not as it was written.
    """
    return _without_digest(read_json(path), str(path))


def read_if_intact(path: Path, then: str = "It is left out.") -> dict[str, Any]:
    """As `read_sealed_json`; empty if the file is missing, or damaged, of which the log warns once.

    `then` says what follows from the damage.
    """
    if not path.exists():
        return {}
    try:
        return read_sealed_json(path)
    except SweepFolderError as error:
        warn_once(f"{error} {then}")
        return {}


def sealed_line(document: Mapping[str, Any]) -> str:
    """A JSON object with its `digest` as one line."""
    return json.dumps(_with_digest(document)) + "\n"


def read_sealed_lines(path: Path) -> list[dict[str, Any]]:
    """The content of lines that `sealed_line` made, without a partial last one, left by a crash.

    Raises:
        SweepFolderError: another line is not as it was written.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    places = (f"Line {number} of {path}" for number in range(1, len(lines) + 1))
    return [_without_digest(_parsed(line, at), at) for line, at in zip(lines, places, strict=True)]


def _with_digest(document: Mapping[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(document))
    return {**plain, "digest": json_digest(plain)}


def _without_digest(document: Any, place: str) -> dict[str, Any]:
    digest = document.pop("digest", None) if isinstance(document, dict) else None
    if digest is None or digest != json_digest(document):
        raise SweepFolderError(_CHANGED.format(path=place))
    return dict(document)


def read_json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file; `default`, if there is one, stands for a file that is missing.

    Raises:
        SweepFolderError: the file does not exist or is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        if default is not None:
            return default
        raise SweepFolderError(f"{path} must exist, but does not. Is the folder right?") from error
    except IsADirectoryError as error:
        raise SweepFolderError(f"{path} must be a file, but is a folder.") from error
    return _parsed(content, str(path))


def _parsed(content: bytes, place: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SweepFolderError(f"{place} must be JSON, but is damaged: {error}.") from error


def create_folder(path: Path) -> None:
    """Make a new output folder, or take an empty one, and check that it can be written.

    The lease of a sweep that was killed before it wrote anything is ignored.

    Raises:
        SweepFolderError: the folder is not empty, or cannot be written.
    """
    require_new(path)
    make_folder(path, "Give another --out.")


def require_new(path: Path) -> None:
    """Check that an output folder is new or empty, without making it.

    Raises:
        SweepFolderError: it is not.
    """
    files = SweepFolder(path)
    if path.is_dir() and any(inside != files.lease for inside in path.iterdir()):
        begun = files.request.is_file()
        cure = f", or continue it: {command_text(PROGRAM, 'resume', path)}" if begun else "."
        raise SweepFolderError(
            f"The output folder must be new or empty, but {path} holds "
            f"{'a sweep' if begun else 'files'}. Give another --out{cure}"
        )


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
    """The total size of all files in a folder, or of a file."""
    paths = folder.rglob("*") if folder.is_dir() else [folder]
    files = (path for path in paths if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)
