"""Ray, as little of it as possible: a cluster to run on, and a map over its workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from generalist_core.validation import require, require_positive
from search.failures import Failure, classify

Item = TypeVar("Item")
Result = TypeVar("Result")

LOOPBACK = "127.0.0.1"
"""Where a cluster on this machine listens: nobody else can reach it."""

ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "60",
}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial takes, how many run at a time (None: as many as fit), and on which cluster.

    GPUs may be fractions. `address` joins a running Ray cluster; None starts one on this machine.
    """

    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        require(self.workers is None or self.workers > 0, "workers > 0", f"{self.workers}")
        require_positive("cpus_per_trial", self.cpus_per_trial)
        require(self.gpus_per_trial >= 0, "gpus_per_trial >= 0", f"{self.gpus_per_trial}")

    @property
    def threads(self) -> int:
        """CPU threads of one trial."""
        return max(1, int(self.cpus_per_trial))


@contextmanager
def running_ray(resources: Resources) -> Iterator[int]:
    """The caller's Ray, left running; else the one at `address` or a new local one.

    Yields how many trials run at a time.
    """
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield n_workers(resources)
        return
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if resources.address is None:
        ray.init(_node_ip_address=LOOPBACK, include_dashboard=False, **common)
    else:
        ray.init(address=resources.address, **common)
    try:
        yield n_workers(resources)
    finally:
        ray.shutdown()


def n_workers(resources: Resources) -> int:
    """As many trials at a time as the cluster holds, and no more than asked for."""
    available: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = [available.get("CPU", 0) / resources.cpus_per_trial]
    if resources.gpus_per_trial > 0:
        fits.append(available.get("GPU", 0) / resources.gpus_per_trial)
    cure = "Ask for less, or add workers to the cluster."
    require(min(fits) >= 1, "one trial fits the cluster", f"{available}", cure)
    return min(int(min(fits)), resources.workers or int(min(fits)))


def map_on_ray(
    function: Callable[..., Result], items: Sequence[Item], resources: Resources, **shared: object
) -> Iterator[tuple[Item, Result | Failure]]:
    """Each item with `function(item, **shared)`, in the order in which workers finish."""
    task: Any = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)(
        function
    )
    references = {name: ray.put(value) for name, value in shared.items()}
    waiting = list(reversed(items))
    running: dict[Any, Item] = {}
    n_at_once = n_workers(resources)
    while waiting or running:
        while waiting and len(running) < n_at_once:
            item = waiting.pop()
            running[task.remote(item, **references)] = item
        (done,), _ = ray.wait(list(running), num_returns=1)
        yield running.pop(done), _outcome(done)


def _outcome(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        return classify(cause if isinstance(cause, Exception) else error)
    except RayError as error:
        return Failure(kind="worker-died", reason=f"the worker died: {error}")
