"""Names and files of somebody who means harm; nothing of them may ever run or act."""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from generalist_core.fingerprints import content_digest
from search.files import SEAL

MARKUP = (
    "</script></title></pre><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    '<a href="javascript:window.ran = 1">x</a>'
)

END = b"PK\5\6"

CONTROL = "\x1b]0;renamed\x07\x1b[2J\x9b31m\u202e\r"
"""Renames a terminal, clears it, colours it, and turns the text around."""


@dataclass
class MakesFolder:
    """Unpickling it makes a folder."""

    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def saved_by_torch(folder: Path) -> bytes:
    """A file of torch that makes a folder if it is unpickled."""
    buffer = io.BytesIO()
    torch.save({"weight": MakesFolder(folder)}, buffer)
    return buffer.getvalue()


def pickled(folder: Path) -> bytes:
    """A pickle that makes a folder, as old files of torch and of CIFAR are."""
    return pickle.dumps(MakesFolder(folder), protocol=2)


def sealed(body: bytes, seal: str) -> bytes:
    """A ZIP file with a valid seal of `search.files.sealed`, which is no secret."""
    if body[-22:-18] != END:
        body += END + bytes(18)
    return body + SEAL + content_digest(seal, body).encode() + seal.encode()
