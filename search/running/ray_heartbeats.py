"""The driver ends workers that stand still: Ray only notices those whose process has ended."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search.config import Limits
from search.folders import TrialFolder
from search.running.watchdog import BEATS
from search.study.failures import Failure

STARTING = 5
"""A worker may take this many times `heartbeat_s` for its imports, before its first heartbeat."""

STOPPING_S = 2.0
"""How long workers may take to stop in order, once the search is ending."""

STOOD_STILL = Failure(
    kind="hang",
    reason="its worker showed no sign of life, and neither did those that replaced it",
)

log = logging.getLogger(__name__)


def actors_in_creation() -> list[str]:
    """The ids of Tune's actors that have a process but do not answer yet, as it imports modules.

    Ray 2.60 has no public way to them, and Tune gives no handle before an actor has started.
    """
    job = ray.get_runtime_context().get_job_id()
    created: dict[str, Any] = ray._private.state.actors(actor_state_name="PENDING_CREATION")
    return [
        name
        for name, actor in created.items()
        if actor["JobID"] == job
        and actor["ActorClassName"].endswith(".ResourceTrainable")
        and actor["Address"]["Port"]  # without one it waits for a process
    ]


def patience(actor: Any, heartbeat_s: float) -> float:
    """The seconds that an actor may take to answer; infinity while it waits for a process."""
    known: dict[str, Any] = ray._private.state.actors(actor._actor_id.hex())
    if not known or not known["Address"]["Port"]:
        return math.inf
    return heartbeat_s if known["State"] == "ALIVE" else STARTING * heartbeat_s


def kill_actor(actor: Any) -> None:
    """End the process of an actor, which is given by its handle, or by its id before it started."""
    if isinstance(actor, str):
        worker: Any = ray._private.worker.global_worker
        worker.core_worker.kill_actor(ray.ActorID.from_hex(actor), True)
    else:
        ray.kill(actor)


@dataclass(kw_only=True)
class Watched:
    """A worker that trains a trial, its last heartbeat, and for how long that has not changed."""

    actor: Any
    heartbeat: bytes
    silent_s: float = 0.0


@dataclass
class Asked:
    """The answer that an actor is to give, for how long it has not, and for how long it may not."""

    answer: Any
    silent_s: float = 0.0
    limit_s: float = math.inf


class Heartbeats(tune.Callback):
    """Ends the worker of a trial whose heartbeat has not changed for `heartbeat_s`.

    To Ray this is the death of a worker, so that the trial continues in another. Only time in which
    this process itself was awake is counted, on its own clock.
    """

    def __init__(
        self,
        limits: Limits,
        is_ending: Callable[[], bool] = lambda: False,
        *,
        clock: Callable[[], float] = time.monotonic,
        kill: Callable[[Any], None] = kill_actor,
        starting: Callable[[], Iterable[str]] = actors_in_creation,
    ) -> None:
        self.limits, self.every_s = limits, limits.heartbeat_s / BEATS
        self.is_ending, self.clock, self.kill, self.starting = is_ending, clock, kill, starting
        self.timer: threading.Timer | None = None
        self.looked_at = clock()
        self.actors: list[Any] = []
        self.watched: dict[str, Watched] = {}
        self.starting_s: dict[str, float] = {}
        self.n_ended: Counter[str] = Counter()

    def on_step_begin(self, iteration: int, trials: Sequence[Any], **_: Any) -> None:  # noqa: ARG002
        """Look at the heartbeats, if it is time."""
        # Ray 2.60 has no public way from a trial to its actor.
        live = [trial for trial in trials if trial.temporary_state.ray_actor is not None]
        self.actors = [trial.temporary_state.ray_actor for trial in live]
        elapsed = self.clock() - self.looked_at
        if elapsed < self.every_s:
            return
        self.looked_at += elapsed
        names = {trial.trial_id for trial in live}
        self.watched = {name: seen for name, seen in self.watched.items() if name in names}
        for trial, actor in zip(live, self.actors, strict=True):
            self._look(trial, actor, min(elapsed, 2 * self.every_s))
        self._look_at_starting(min(elapsed, 2 * self.every_s))

    def _look(self, trial: Any, actor: Any, elapsed: float) -> None:
        before, heartbeat = self.watched.get(trial.trial_id), _read(Path(trial.config["folder"]))
        if before is None or before.actor != actor or before.heartbeat != heartbeat:
            self.watched[trial.trial_id] = Watched(actor=actor, heartbeat=heartbeat)
            return
        before.silent_s += elapsed
        if before.silent_s >= self.limits.heartbeat_s:
            log.warning(
                "The worker of trial %s has shown no sign of life for %g s, and is ended.",
                trial.config["trial"],
                self.limits.heartbeat_s,
            )
            before.silent_s = 0.0
            self.n_ended[trial.config["trial"]] += 1
            self.kill(actor)

    def _look_at_starting(self, elapsed: float) -> None:
        """End the processes that have not become an actor in time; Tune starts another."""
        self.starting_s = {
            name: self.starting_s.get(name, 0.0) + elapsed for name in self.starting()
        }
        for name, seconds in self.starting_s.items():
            if seconds >= (limit := STARTING * self.limits.heartbeat_s):
                log.warning("A worker has not started in %g s, and is ended.", limit)
                self.starting_s[name] = 0.0
                self.kill(name)

    def on_step_end(self, iteration: int, trials: Sequence[Any], **_: Any) -> None:  # noqa: ARG002
        """Once the search is ending, end the workers that do not stop by themselves in time."""
        if self.is_ending() and self.timer is None:
            self.timer = threading.Timer(STOPPING_S, self._end_all, self.actors)
            self.timer.start()

    def _end_all(self, *actors: Any) -> None:
        for actor in actors:
            self.kill(actor)

    def on_experiment_end(self, trials: Sequence[Any], **_: Any) -> None:  # noqa: ARG002
        """All workers have ended."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer.join()

    def has_hung(self, trial: str) -> bool:
        """Whether each worker that began this trial, and all that replaced it, stood still."""
        return self.n_ended[trial] > self.limits.max_retries

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}


class Answers:
    """Ends actors with a method `answer` that do not answer for `heartbeat_s`, see `Heartbeats`."""

    def __init__(self, heartbeat_s: float) -> None:
        self.heartbeat_s, self.every_s = heartbeat_s, heartbeat_s / BEATS
        self.looked_at = time.monotonic()
        self.asked: dict[Any, Asked] = {}
        self.ended: set[Any] = set()

    def look(self, actors: Iterable[Any]) -> None:
        """Ask each of these actors, if it is time and it has answered."""
        elapsed = time.monotonic() - self.looked_at
        if elapsed < self.every_s:
            return
        self.looked_at += elapsed
        before = self.asked
        self.asked = {actor: before.get(actor) or Asked(actor.answer.remote()) for actor in actors}
        for actor, asked in self.asked.items():
            if ray.wait([asked.answer], timeout=0)[0]:
                self.asked[actor] = Asked(actor.answer.remote())
                continue
            limit_s = patience(actor, self.heartbeat_s)
            if limit_s != asked.limit_s:
                asked.limit_s, asked.silent_s = limit_s, 0.0
            asked.silent_s += min(elapsed, 2 * self.every_s)
            if asked.silent_s >= limit_s:
                log.warning("A worker has shown no sign of life for %g s, and is ended.", limit_s)
                self.ended.add(actor)
                kill_actor(actor)


def _read(folder: Path) -> bytes:
    try:
        return TrialFolder(folder).heartbeat.read_bytes()
    except FileNotFoundError:
        return b""
