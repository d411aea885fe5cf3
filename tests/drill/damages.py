"""Damages to the files of a sweep at rest: what happens to a file, and to which files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

MENDED, REFUSED, EITHER = "mended", "refused", "either"
"""What may follow: the sweep goes on as if nothing had been, or a command says what to mend."""


def changed_bit(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def changed_digit(content: bytes, rng: Random) -> bytes:
    place = rng.choice([n for n, byte in enumerate(content) if chr(byte).isdigit()] or [0])
    digit = rng.choice([d for d in b"0123456789" if d != content[place]])
    return content[:place] + bytes([digit]) + content[place + 1 :]


def without_line(content: bytes, rng: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


CHANGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "a changed bit": changed_bit,
    "a changed digit": changed_digit,
    "the end cut off": lambda content, rng: content[: rng.randrange(len(content))],
    "a line removed": without_line,
    "content doubled": lambda content, _: 2 * content,
    "no content": lambda _, __: b"",
    "zeros": lambda content, _: bytes(len(content)),
    "noise": lambda content, rng: rng.randbytes(len(content)),
}
"""What another content may be."""


def deleted(path: Path, _: Path) -> None:
    path.unlink()


def folder_instead(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()


def of_another(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


REPLACEMENTS: dict[str, Callable[[Path, Path], None]] = {
    "deleted": deleted,
    "a folder instead": folder_instead,
    "the file of another": of_another,
}
"""What else may be in a file's place, given the file and one of another trial or sweep."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files of a sweep, by a pattern in its folder, and what may follow from a damage to them."""

    pattern: str
    may: str = EITHER
    is_finished: bool = True
    mends: tuple[str, ...] = ("resume",)
    """The command that mends, without the folder and further options."""


VERIFY = ("verify",)

FILES = (
    Files(pattern="study.journal"),
    Files(pattern="study.journal", is_finished=False),
    Files(pattern="sweep.json"),
    Files(pattern="trials/*/averages.pt", may=MENDED),
    Files(pattern="trials/*/points.json", may=MENDED),
    Files(pattern="trials/*/metrics.jsonl"),
    Files(pattern="trials/*/metrics.jsonl", is_finished=False),
    Files(pattern="trials/*/config.json", is_finished=False),
    Files(pattern="trials/*/checkpoint.pt", is_finished=False),
    Files(pattern="warmups/*/*.pt", is_finished=False),
    Files(pattern="warmups/*/meta.json", is_finished=False),
    Files(pattern="warmups/*/owner", is_finished=False),
    Files(pattern=".lease", is_finished=False),
    Files(pattern="tensorboard/*/events*", is_finished=False),
    Files(pattern="log.txt", is_finished=False),
    Files(pattern="repeats/*/points.json"),
    Files(pattern="repeats/*/averages.pt", may=MENDED),
    Files(pattern="repeats/*/metrics.jsonl"),
    Files(pattern="repeats/*/config.json"),
    Files(pattern="repeats.json", may=MENDED),
    Files(pattern="front.json", may=MENDED),
    Files(pattern="front.csv", may=MENDED),
    Files(pattern="report.html", may=MENDED),
    Files(pattern="plots/*", may=MENDED),
    Files(pattern="verified.json", mends=VERIFY),
    Files(pattern="verify/*.pt", mends=VERIFY),
    Files(pattern="../own_space.py"),
    Files(pattern="../own_model.py", is_finished=False),
)

FOLDERS = ("tensorboard", "trials", "warmups", "repeats", "plots", "verify")
"""Folders of a sweep in whose place a file may be, or nothing."""

EDITS: dict[str, Any] = {
    "format": 1,
    "study": "another",
    "custom.data": "0" * 64,
    "custom.model": True,
    "pins": {},
    "pins.images": "0" * 32,
    "environment": {},
    "request.trials": 3,
    "request.trials ": "many",
    "request.space": "full",
    "request.sampler": "random",
    "request.seed": 99,
    "request.repeats": 0,
    "request.round_size": 1,
    "request.storage": "sqlite:////nowhere/study.db",
    "request.early_stopping": None,
    "request.resources.local": False,
    "request.limits.epoch_s": 1.5,
    "request.base": None,
    "request.base.epochs": 5,
    "request.base.seed": 99,
    "request.base.data.root": "/nowhere",
    "request.base.model.digest": "0" * 64,
    "request.base.experts": [],
}
"""Fields of `sweep.json`, and other values that a hand may write."""


def edit(path: Path, field: str, value: Any) -> None:
    """Set a field, by its dotted name, in a JSON file."""
    document = json.loads(path.read_text())
    *outer, last = field.strip().split(".")
    inside = document
    for name in outer:
        inside = inside[name]
    inside[last] = value
    path.write_text(json.dumps(document))
