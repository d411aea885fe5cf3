"""Ray, as little of it as possible: a cluster to run on, and a map over its workers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError, RayError, RayTaskError

from generalist_core.validation import InvalidConfigError, require
from search.config import Resources
from search.running.preflight import require_reachable
from search.study.failures import Failure, classify

Item = TypeVar("Item")

Result = TypeVar("Result")

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
"""Where a cluster on this machine listens: nobody else can reach it."""

JOINING_S = 120.0
"""How long a cluster that has just been started may take to bring a machine for a trial."""

ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # the search limits itself; else workers start in turn
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "60",
}


@contextmanager
def running_ray(resources: Resources) -> Iterator[int]:
    """The caller's Ray, left running; else the one at `address` or a new local one.

    Yields how many trials run at a time.

    Raises:
        InvalidConfigError: no machine has room for one trial, or the cluster refuses this user.
    """
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield n_workers(resources)
        return
    if resources.address is None:
        _start()
    else:
        _join(resources.address)
    try:
        yield n_workers(resources, patience_s=JOINING_S if resources.address else 0.0)
    finally:
        ray.shutdown()


def _start() -> None:
    """Start Ray on this machine, for this machine, whatever RAY_ADDRESS says.

    Asked for 127.0.0.1, Ray on Linux takes the address that others see and then listens on all
    interfaces, unless it is told that there is no cluster (ray/_private/services.py).
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init(
            address="local",  # without it Ray joins a cluster that it finds on this machine
            _node_ip_address=LOOPBACK,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _join(address: str) -> None:
    require_reachable(address)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (AuthenticationError, ConnectionError) as error:
        raise InvalidConfigError(
            f"`address` must be that of a Ray cluster that lets this user in, but: {error}. "
            "If it wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH."
        ) from error


def n_workers(resources: Resources, *, patience_s: float = 0.0) -> int:
    """As many trials at a time as the cluster holds, and no more than asked for.

    Raises:
        InvalidConfigError: not even one, for `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while (n := n_at_once(resources)) == 0 and time.monotonic() < deadline:
        log.warning("No machine of the cluster has room for a trial yet; waiting for one.")
        time.sleep(min(10.0, max(0.0, deadline - time.monotonic())))
    cure = "Ask for less, or add machines to the cluster."
    require(n > 0, "one trial fits a machine of the cluster", f"{_machines()}", cure)
    return n


def n_at_once(resources: Resources) -> int:
    """How many trials fit the machines that the cluster has now, and no more than asked for."""
    n = sum(fits_on(machine, resources) for machine in _machines())
    return n if resources.workers is None else min(n, resources.workers)


def _machines() -> list[dict[str, float]]:
    """The CPUs and GPUs of each machine."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return [{name: node.get(name, 0.0) for name in ("CPU", "GPU")} for node in alive]


def fits_on(machine: Mapping[str, float], resources: Resources) -> int:
    """How many trials fit one machine; a fraction of a GPU lies on one GPU."""
    fits = _quotient(machine["CPU"], resources.cpus_per_trial)
    fraction = resources.gpus_per_trial
    if fraction == 0:
        return fits
    gpus = int(machine["GPU"])
    return min(fits, gpus * _quotient(1.0, fraction) if fraction < 1 else _quotient(gpus, fraction))


def _quotient(whole: float, part: float) -> int:
    """How often a part fits, to the ten-thousandths in which Ray counts."""
    return round(whole * 10_000) // max(1, round(part * 10_000))


def map_on_ray(
    function: Callable[..., Result],
    items: Sequence[Item],
    *,
    resources: Resources,
    **shared: object,
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
