"""Warm-ups that trials share, in a folder that several processes and sweeps may use at once.

<root>/<key>/<epoch>.pt   an expert's state after so many epochs, and a digest behind it
<root>/<key>/meta.json    what it is, for people
<root>/<key>/claim        who trains it now; the file's time is a heartbeat
<root>/.lock              held for an instant by whoever takes or removes a claim

It is a cache: what was evicted or damaged is trained again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from generalist_core.config.codec import to_dict
from generalist_core.training.cost import update_cost
from generalist_core.training.trainer import GeneralistTrainer, Metrics
from generalist_core.training.warmups import (
    adopt_warmup,
    train_warmup,
    warming,
    warmup_keys,
    warmup_state,
)
from generalist_core.validation import require, require_positive
from search.config import WarmupConfig
from search.errors import SweepFolderError
from search.files import load_sealed, save_sealed, write_json

log = logging.getLogger(__name__)

HEARTBEATS = 6
"""In the time after which a claim is dead. Shared folders may show times that are a minute old."""


def open_store(config: WarmupConfig, owner: str) -> WarmupStore:
    """The store, for the trial that `owner` names."""
    return WarmupStore(Path(config.folder), max_bytes=config.max_bytes, owner=owner)


class WarmupStore:
    """States of experts by key (see `generalist_core.training.warmup_keys`): at most `max_bytes` of them.

    A state is there as a whole or not at all. Times are compared on the folder's own clock.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int | None = None,
        owner: str | None = None,
        stale_after_s: float = 120.0,
    ) -> None:
        """Open the store, or begin one.

        Args:
            root: the folder.
            max_bytes: what states may take; None for no limit.
            owner: a name for claims of one trial that never runs twice at once, such as its whole
                path. After a crash it gets back its own claims without waiting for their death.
            stale_after_s: what has shown no sign of life for so long is dead: a claim may be taken
                over, a state evicted.
        """
        require(max_bytes is None or max_bytes > 0, "max_bytes > 0", f"max_bytes={max_bytes}")
        require_positive("stale_after_s", stale_after_s)
        self.root = root
        self.max_bytes = max_bytes
        self.owner = owner
        self.stale_after_s = stale_after_s
        root.mkdir(parents=True, exist_ok=True)

    def find(self, keys: Sequence[str], epoch: int) -> int | None:
        """The latest epoch <= `epoch` whose state is stored; `keys[e]` is that of epoch e > 0."""
        epochs = range(min(epoch, len(keys) - 1), 0, -1)
        return next((e for e in epochs if self._file(keys[e], e).is_file()), None)

    def load(self, key: str, epoch: int) -> dict[str, Any] | None:
        """A stored state; None if there is none any more.

        A file that is torn, damaged, or not of this key and epoch is put aside, with a warning.
        """
        path = self._file(key, epoch)
        try:
            state = load_sealed(path, _seal(key, epoch))
        except SweepFolderError as error:
            log.warning("%s It is put aside, and the warm-up trained again.", error)
            with contextlib.suppress(FileNotFoundError):
                path.replace(path.with_suffix(".damaged"))
            return None
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
        return state

    def publish(
        self, key: str, epoch: int, state: Mapping[str, Any], about: Mapping[str, Any]
    ) -> None:
        """Store a state for all to use, with a description in JSON; then keep to `max_bytes`."""
        path = self._file(key, epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path.parent / "meta.json", {**about, "epoch": epoch})
        save_sealed(path, state, _seal(key, epoch))
        self._evict()

    def claim(self, key: str) -> Claim | None:
        """The right to train what `key` names; None if another has it and lives."""
        path = self.root / key / "claim"
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if path.exists() and (self._is_own(path) or self._is_dead(path)):
                log.warning("The claim %s is taken over: its owner is gone.", path)
                path.unlink()
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                return None
            name = self.owner or f"{socket.gethostname()}, process {os.getpid()}"
            os.write(descriptor, name.encode())
        return Claim(self, path, descriptor)

    def release(self, path: Path, descriptor: int) -> None:
        """Remove a claim, unless it is another's by now."""
        with self._locked():
            found = _stat(path)
            if found is not None and os.path.samestat(found, os.fstat(descriptor)):
                path.unlink()

    def _file(self, key: str, epoch: int) -> Path:
        return self.root / key / f"{epoch}.pt"

    def _is_own(self, claim: Path) -> bool:
        return self.owner is not None and claim.read_text(encoding="utf-8") == self.owner

    def _is_dead(self, claim: Path) -> bool:
        return self._now() - claim.stat().st_mtime > self.stale_after_s

    def _evict(self) -> None:
        """Remove what is large and long unused, until the rest fits; nothing that is in use.

        The first to go has the largest product of bytes and time since its last use.
        """
        if self.max_bytes is None:
            return
        now = self._now()
        stats = {path: _stat(path) for path in self._states()}
        sizes = {path: stat.st_size for path, stat in stats.items() if stat}
        idle = {path: now - stat.st_mtime for path, stat in stats.items() if stat}
        excess = sum(sizes.values()) - self.max_bytes
        for path in sorted(sizes, key=lambda path: sizes[path] * idle[path], reverse=True):
            if excess <= 0:
                return
            claim = _stat(path.parent / "claim")
            is_claimed = claim is not None and now - claim.st_mtime <= self.stale_after_s
            if idle[path] > self.stale_after_s and not is_claimed:
                path.unlink(missing_ok=True)
                excess -= sizes[path]
        if excess > 0:
            log.info("Warm-ups take %d bytes over their limit: all are in use.", excess)

    def _states(self) -> list[Path]:
        """All files that take space: states, damaged ones, and parts that a crash left behind."""
        small = ("meta.json", "claim")
        return [path for path in self.root.glob("*/*") if path.name not in small]

    def _now(self) -> float:
        """The time on the folder's clock, which may be another machine's."""
        lock = self.root / ".lock"
        lock.touch()
        return lock.stat().st_mtime

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all processes; a crash ends it."""
        with (self.root / ".lock").open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Claim:
    """A claim that is held, and shows it by a thread's heartbeat, until `release`."""

    def __init__(self, store: WarmupStore, path: Path, descriptor: int) -> None:
        self.store = store
        self.path = path
        self.descriptor = descriptor
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"claim {path}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let others claim; once or more often."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        self.store.release(self.path, self.descriptor)
        os.close(self.descriptor)

    def _beat(self) -> None:
        """By descriptor: should the claim be taken over, the new owner's is left alone."""
        while not self._ended.wait(self.store.stale_after_s / HEARTBEATS):
            with contextlib.suppress(OSError):  # a missed beat, or over NFS a claim taken over
                os.utime(self.descriptor)


class Warmups(Protocol):
    """Where trials leave their experts' warm-ups for others; `WarmupStore` is one on disk."""

    def find(self, keys: Sequence[str], epoch: int) -> int | None:
        """The latest epoch <= `epoch` whose state is stored; `keys[e]` is that of epoch e > 0."""

    def load(self, key: str, epoch: int) -> Mapping[str, Any] | None:
        """A stored state; None if there is none any more."""

    def publish(
        self, key: str, epoch: int, state: Mapping[str, Any], about: Mapping[str, Any]
    ) -> None:
        """Store a state for all to use."""

    def claim(self, key: str) -> Claimed | None:
        """The right to train what `key` names; None if another has it."""


class Claimed(Protocol):
    """A right to train that is held until `release`."""

    def release(self) -> None:
        """Let others claim; once or more often."""


def share_warmups(
    trainer: GeneralistTrainer, store: Warmups, *, every_epochs: int
) -> Iterator[Metrics | None]:
    """Bring every expert to the first sync; yields the metrics of each epoch trained here.

    What is stored is adopted. The rest is trained expert by expert, the costliest first as it tells
    most of what a trial is worth, and published at multiples of `every_epochs` and at the first
    sync; each such stretch is claimed before and trained by one process alone. Who finds a stretch
    claimed goes on with another expert. If there is none, None is yielded for others to go on:
    no claim is held then, so that there is no deadlock.
    """
    require_positive("every_epochs", every_epochs)
    keys = {name: warmup_keys(trainer, name) for name in warming(trainer)}
    while names := warming(trainer):
        for name in sorted(names, key=lambda name: -update_cost(trainer.expert(name).config)):
            if adopt_latest(trainer, store, name, keys[name]):
                break
            until = _next_stop(trainer, name, every_epochs)
            claim = store.claim(keys[name][until])
            if claim is not None:
                try:
                    yield from _train_stretch(trainer, store, claim, name, keys[name], until)
                finally:
                    claim.release()
                break
        else:
            yield None


def adopt_latest(
    trainer: GeneralistTrainer, store: Warmups, name: str, keys: Sequence[str]
) -> bool:
    """Give an expert the latest stored state that is ahead of it; whether there was one."""
    while (epoch := store.find(keys, len(keys) - 1) or 0) > trainer.expert(name).epoch:
        state = store.load(keys[epoch], epoch)
        if state is not None:
            adopt_warmup(trainer, name, state)
            return True
    return False


def _train_stretch(
    trainer: GeneralistTrainer,
    store: Warmups,
    claim: Claimed,
    name: str,
    keys: Sequence[str],
    until: int,
) -> Iterator[Metrics]:
    """Train and publish up to an epoch, unless that was published just before it was claimed.

    The claim ends with the publication: who asked for the metrics may take its time with them.
    """
    if adopt_latest(trainer, store, name, keys):
        return
    expert, config = trainer.expert(name), trainer.config
    parts = {"expert": expert.config, "data": config.data, "model": config.model}
    about = {what: to_dict(part) for what, part in parts.items()}
    while expert.epoch < until:
        metrics = train_warmup(trainer, name)
        if expert.epoch == until:
            store.publish(keys[until], until, warmup_state(trainer, name), about)
            claim.release()
        yield metrics


def _next_stop(trainer: GeneralistTrainer, name: str, every_epochs: int) -> int:
    """The next epoch to publish: a multiple of `every_epochs`, or the first sync."""
    epoch = trainer.expert(name).epoch
    return min((epoch // every_epochs + 1) * every_epochs, trainer.config.sync.start_epoch)


def _seal(key: str, epoch: int) -> str:
    """Binds a state to its place: the file may not be moved."""
    return f"{key}/{epoch}/"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
