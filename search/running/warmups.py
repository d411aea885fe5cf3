"""Warm-ups that trials share, in a folder that several processes and sweeps may use at once.

<root>/<key>/<epoch>.pt   an expert's state after that many epochs, followed by a digest
<root>/<key>/meta.json    a description of the state, for people
<root>/<key>/claim        the process that trains it now; the file's time is a heartbeat
<root>/<key>/owner        the trial that made the latest claim
<root>/.lock              held for an instant while a claim is made

It is a cache: a state that was evicted or damaged is trained again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, SoftFileLease, Timeout

from generalist_core.config import ExpertConfig, TrainConfig
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
from search.lease import soft_lease

log = logging.getLogger(__name__)

STATE = re.compile(r"\d+\.(pt|damaged)|\.\d+\.pt\.\w+")
"""The names of states, of damaged ones, and of those that were partly written."""

FEW_EPOCHS = 3
"""Epochs that are rather trained again than a state stored for each of them."""

HEARTBEATS = 6
"""Heartbeats per `stale_after_s`; this is 120 s as a shared folder may show times a minute late."""


def open_store(config: WarmupConfig, owner: str) -> WarmupStore:
    """The store, for the trial that `owner` names."""
    return WarmupStore(Path(config.folder), max_bytes=config.max_bytes, owner=owner)


class WarmupStore:
    """States of experts by key (see `generalist_core.training.warmup_keys`), in a bounded folder.

    A state is there as a whole or not at all.
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
            max_bytes: the most that all states may take; None for no limit.
            owner: a name for the claims of one trial, such as its absolute path; no two processes
                may use it at the same time. After a crash the trial gets its claims back at
                once.
            stale_after_s: a claim without a heartbeat for this long may be taken over, and a state
                that was not used for this long may be evicted. The same for all users of a folder.
        """
        require(max_bytes is None or max_bytes > 0, "max_bytes > 0", f"max_bytes={max_bytes}")
        require_positive("stale_after_s", stale_after_s)
        self.root = root
        self.max_bytes = max_bytes
        self.owner = owner
        self.stale_after_s = stale_after_s
        self._leases: dict[Path, SoftFileLease] = {}
        root.mkdir(parents=True, exist_ok=True)

    def find(self, keys: Sequence[str], epoch: int) -> int | None:
        """The latest epoch <= `epoch` whose state is stored; `keys[e]` is the key of epoch e."""
        epochs = range(min(epoch, len(keys) - 1), 0, -1)
        return next((e for e in epochs if self._file(keys[e], e).is_file()), None)

    def load(self, key: str, epoch: int) -> dict[str, Any] | None:
        """A stored state; None if it is no longer there.

        A file that is damaged, or belongs to another key or epoch, is put aside with a warning.
        """
        path = self._file(key, epoch)
        try:
            state = load_sealed(path, _seal(key, epoch))
        except SweepFolderError as error:
            log.warning("%s It is put aside, and the warm-up is trained again.", error)
            with contextlib.suppress(FileNotFoundError):
                path.replace(path.with_suffix(".damaged"))
            return None
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
        return state

    def publish(
        self, key: str, epoch: int, state: Mapping[str, Any], description: Mapping[str, Any]
    ) -> None:
        """Store a state for all to use, with its description; then evict down to `max_bytes`."""
        path = self._file(key, epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path.parent / "meta.json", {**description, "epoch": epoch})
        save_sealed(path, state, _seal(key, epoch))
        self._evict()

    def thin_out(self, keys: Sequence[str], gap: float) -> None:
        """Remove states of the warm-up with these keys, see `needless`."""
        there = [epoch for epoch in range(1, len(keys)) if self._file(keys[epoch], epoch).is_file()]
        for epoch in needless(there, gap):
            self._file(keys[epoch], epoch).unlink(missing_ok=True)

    def claim(self, key: str) -> SoftFileLease | None:
        """The right to train what `key` names; None if another process has it and is alive.

        A holder on this machine is dead once its process has ended. A holder on another machine is
        dead if its claim stays unchanged for `stale_after_s`, measured on this machine's clock.
        """
        path = self.root / key / "claim"
        path.parent.mkdir(parents=True, exist_ok=True)
        lease = self._lease(path)
        if lease.is_locked:
            return None
        with FileLock(self.root / ".lock"):
            is_left_behind = lease.owner is not None
            if self._made(path):
                lease.force_break()
            try:
                lease.acquire()
            except Timeout:
                return None
            _owner_file(path).write_text(self.owner or "", encoding="utf-8")
        if is_left_behind:
            log.warning("The claim %s is taken over: its holder is dead.", path)
        return lease

    def _lease(self, path: Path) -> SoftFileLease:
        """The same lease at each call, as it remembers how long a claim has been unchanged."""
        if path not in self._leases:
            self._leases[path] = soft_lease(path, self.stale_after_s, HEARTBEATS)
        return self._leases[path]

    def _made(self, claim: Path) -> bool:
        """Whether this trial made the claim, before a crash.

        The lease cannot tell: it knows processes, and a process on a lost machine counts as alive
        until its claim is stale.
        """
        try:
            owner = _owner_file(claim).read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        return owner == self.owner

    def _file(self, key: str, epoch: int) -> Path:
        return self.root / key / f"{epoch}.pt"

    def _evict(self) -> None:
        """Remove large and long unused files until the rest fits, but none that is in use.

        The file with the largest product of bytes and time since its last use is removed first.
        Times are compared on the clock of the folder, which may be another machine's.
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
            log.info("Warm-ups exceed their limit by %d bytes: all are in use.", excess)

    def _states(self) -> list[Path]:
        """All large files: states, damaged states, and partly written files left by a crash.

        Whatever else a user keeps in the folder is left alone.
        """
        return [path for path in self.root.glob("*/*") if STATE.fullmatch(path.name)]

    def _now(self) -> float:
        """The time on the folder's clock."""
        lock = self.root / ".lock"
        lock.touch()
        return lock.stat().st_mtime


class Warmups(Protocol):
    """Where trials leave their experts' warm-ups for others; `WarmupStore` keeps them on disk."""

    def find(self, keys: Sequence[str], epoch: int) -> int | None:
        """The latest epoch <= `epoch` whose state is stored; `keys[e]` is the key of epoch e."""

    def load(self, key: str, epoch: int) -> Mapping[str, Any] | None:
        """A stored state; None if it is no longer there."""

    def publish(
        self, key: str, epoch: int, state: Mapping[str, Any], description: Mapping[str, Any]
    ) -> None:
        """Store a state for all to use."""

    def thin_out(self, keys: Sequence[str], gap: float) -> None:
        """Remove states of the warm-up with these keys, see `needless`."""

    def claim(self, key: str) -> Claimed | None:
        """The right to train what `key` names; None if another trial has it."""


class Claimed(Protocol):
    """A right to train that is held until `release`."""

    def release(self) -> None:
        """Let others make the claim; may be called again."""


def share_warmups(
    trainer: GeneralistTrainer, store: Warmups, *, every_epochs: int
) -> Iterator[Metrics | None]:
    """Bring every expert to the first sync; yields the metrics of each epoch trained here.

    Stored states are adopted. The rest is trained expert by expert, and published at multiples of
    `every_epochs` and at the first sync; of the states before the last one those stay that save
    much, see `largest_gap`. The costliest expert comes first, because it says most
    about how good a trial will be. Each stretch between two publications is claimed first, so that
    only one process trains it. If a stretch is claimed by another trial, another expert is trained
    meanwhile; if there is no other, None is yielded so that the caller can wait. No claim is held
    then, so that there is no deadlock. A model without a fingerprint shares nothing.
    """
    require_positive("every_epochs", every_epochs)
    if trainer.origin.model is None:
        return
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
    """Give an expert the latest stored state that is ahead of it; returns whether there was one."""
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
    """Train and publish up to an epoch, unless it was published just before it was claimed.

    The claim ends with the publication, because the caller may take long with the metrics.
    """
    if adopt_latest(trainer, store, name, keys):
        return
    expert, config = trainer.expert(name), trainer.config
    parts = {"expert": expert.config, "data": config.data, "model": config.model}
    description = {what: to_dict(part) for what, part in parts.items()}
    while expert.epoch < until:
        metrics = train_warmup(trainer, name)
        if expert.epoch == until:
            store.publish(keys[until], until, warmup_state(trainer, name), description)
            store.thin_out(keys[: until + 1], largest_gap(config, expert.config, until))
            claim.release()
        yield metrics


def needless(epochs: Sequence[int], gap: float) -> list[int]:
    """Which states, of increasing epochs, have neighbours that are at most `gap` epochs apart.

    Without them a later trial trains fewer than `gap` epochs again. The latest is not among them.
    """
    found, before = [], 0
    for epoch, after in pairwise(epochs):
        if after - before <= gap:
            found.append(epoch)
        else:
            before = epoch
    return found


def largest_gap(config: TrainConfig, expert: ExpertConfig, latest: int) -> float:
    """The most epochs between two stored states on either side of one that is not worth its room.

    They cost at most as much as three epochs of the costliest expert of the run, or a quarter of
    its `latest` epochs if that is more: states are as dense as the epochs are few, and a warm-up
    has at most seven, however long it grows.
    """
    costs = [update_cost(each) for each in config.experts]
    return max(FEW_EPOCHS, latest / 4) * max(costs) / update_cost(expert)


def _next_stop(trainer: GeneralistTrainer, name: str, every_epochs: int) -> int:
    """The next epoch to publish: a multiple of `every_epochs`, or the first sync."""
    epoch = trainer.expert(name).epoch
    return min((epoch // every_epochs + 1) * every_epochs, trainer.config.sync.start_epoch)


def _seal(key: str, epoch: int) -> str:
    """Binds a state to its key and epoch, so that the file cannot be moved."""
    return f"{key}/{epoch}/"


def _owner_file(claim: Path) -> Path:
    """Names the trial that made the claim last."""
    return claim.with_name("owner")


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
