"""A Ray cluster to run on, and a map over its workers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import ray
import torch
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants, services, utils
from ray.exceptions import AuthenticationError, RayError, RayTaskError

from generalist_core.validation import InvalidConfigError
from search.config import Limits, Resources
from search.interruption import descendants, kill, set_handlers_again
from search.running.preflight import require_reachable
from search.running.ray_heartbeats import STOOD_STILL, Answers
from search.study.failures import Failure, classify, is_of_folder

Item = TypeVar("Item")

Result = TypeVar("Result")

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
"""Where a cluster of this machine listens: other machines cannot reach it."""

JOINING_S = 120.0
"""How long a cluster that was just started may take until a machine has room for a trial."""

SHORT_FOLDER = "/tmp/ray"  # noqa: S108 - Ray's own where no variable names another
"""Where Ray keeps its files if the path that the environment asks for is too long."""

MAX_FOLDER_BYTES = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
"""The longest path in which Ray's sockets have paths of at most 107 bytes, as Linux has it."""

ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see `search.interruption`
    "TUNE_FORCE_TRIAL_CLEANUP_S": "60",  # a worker that was told to stop, and stands still
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # the search limits itself
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "60",
}


@contextmanager
def running_ray(resources: Resources) -> Iterator[int]:
    """Use the caller's Ray if it runs, and leave it running; else join `address` or start a Ray.

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
        _shut_down()


def _start() -> None:
    """Start a Ray of this machine alone, whatever RAY_ADDRESS says."""
    others = descendants()
    try:
        with _keeping_loopback(), _keeping_handlers(), _in_groups_of_their_own():
            ray.init(
                address="local",  # without it Ray joins a cluster that it finds on this machine
                _node_ip_address=LOOPBACK,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                _temp_dir=temporary_folder(),
            )
    except BaseException:  # Ray leaves what it had started
        kill(descendants() - others)
        raise


@contextmanager
def _keeping_handlers() -> Iterator[None]:
    """Keep Ray from replacing the handler of SIGTERM, by ones that exit without a word.

    Its C++ code sets one too, before the calls that are replaced here.
    """
    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda _: set_handlers_again()
    try:
        yield
    finally:
        utils.set_sigterm_handler = before
        set_handlers_again()


def temporary_folder() -> str | None:
    """Where Ray keeps its sockets if the folder that it would take has too long a path for them.

    None stands for Ray's own choice, below RAY_TMPDIR, TMPDIR or /tmp.
    """
    chosen: str = get_default_ray_temp_dir()  # type: ignore[no-untyped-call]
    return SHORT_FOLDER if len(os.fsencode(chosen)) > MAX_FOLDER_BYTES else None


def _shut_down() -> None:
    """Leave Ray, and end its processes if they were started here.

    Its C++ code removes the handler of SIGTERM; that is set again before processes are waited for.
    """
    node: Any = ray._private.worker._global_node
    if node is not None:
        end_processes = node.kill_all_processes

        def end_interruptibly(*settings: Any, **more: Any) -> None:
            set_handlers_again()
            end_processes(*settings, **more)

        node.kill_all_processes = end_interruptibly
    ray.shutdown()
    set_handlers_again()


@contextmanager
def _keeping_loopback() -> Iterator[None]:
    """Make a Ray that starts meanwhile listen on 127.0.0.1 if it is asked to.

    Ray 2.60 has no public way. On Linux it replaces 127.0.0.1 by the address that other machines
    see, and then listens on all interfaces (see `resolve_ip_for_localhost` in
    ray/_private/services.py), unless this constant says that there are no clusters. The variable
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER sets it, but only if it is set before the first import of Ray,
    which may be the caller's. Asked for another address of loopback, such as 127.0.0.2, Ray listens
    on all interfaces.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _in_groups_of_their_own() -> Iterator[None]:
    """Start Ray's processes in groups of their own.

    A signal to the group of this process, such as that of a terminal that is closed, then does not
    end the Ray that it runs on.
    """
    module: Any = services
    before = module.ConsolePopen
    module.ConsolePopen = partial(before, process_group=0)
    try:
        yield
    finally:
        module.ConsolePopen = before


def _join(address: str) -> None:
    require_reachable(address)
    try:
        with _keeping_handlers():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (AuthenticationError, ConnectionError) as error:
        raise InvalidConfigError(
            f"`address` must be that of a Ray cluster that admits this user, but: {error}. "
            "If it wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH."
        ) from error


def require_room(resources: Resources) -> None:
    """Check that a trial fits on a machine, without a start of the Ray of this machine.

    Raises:
        InvalidConfigError: as by `running_ray`.
    """
    if resources.address is not None or ray.is_initialized():
        with running_ray(resources):
            return
    machine = {"CPU": float(utils.get_num_cpus()), "GPU": float(torch.cuda.device_count())}
    if fits_on(machine, resources) == 0:
        raise _no_room([machine])


def n_workers(resources: Resources, *, patience_s: float = 0.0) -> int:
    """The number of trials that run at a time: as many as fit, but at most `workers`.

    Raises:
        InvalidConfigError: not even one trial has fitted for `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while (n := n_at_once(resources)) == 0 and time.monotonic() < deadline:
        log.warning("No machine of the cluster has room for a trial yet; waiting for one.")
        time.sleep(min(10.0, max(0.0, deadline - time.monotonic())))
    if n == 0:
        raise _no_room(_machines())
    return n


def _no_room(machines: Sequence[Mapping[str, float]]) -> InvalidConfigError:
    return InvalidConfigError(
        f"A trial must fit on a machine of the cluster, but got {machines}. "
        "Ask for less, or add machines to the cluster."
    )


def n_at_once(resources: Resources) -> int:
    """How many trials fit on the present machines of the cluster, but at most `workers`."""
    n = sum(fits_on(machine, resources) for machine in _machines())
    return n if resources.workers is None else min(n, resources.workers)


def _machines() -> list[dict[str, float]]:
    """The CPUs and GPUs of each machine."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return [{name: node.get(name, 0.0) for name in ("CPU", "GPU")} for node in alive]


def fits_on(machine: Mapping[str, float], resources: Resources) -> int:
    """How many trials fit on one machine; what a trial has of a GPU is always of a single one."""
    fits = _quotient(machine["CPU"], resources.cpus_per_trial)
    fraction = resources.gpus_per_trial
    if fraction == 0:
        return fits
    return min(fits, int(machine["GPU"]) * _quotient(1.0, fraction))


def _quotient(whole: float, part: float) -> int:
    """How often a part fits, in the units of 1/10,000 in which Ray counts."""
    return round(whole * 10_000) // max(1, round(part * 10_000))


class _Caller:
    """A worker that calls functions in one thread, and answers in another meanwhile."""

    def call(self, function: Callable[..., Result], item: object, **shared: object) -> Result:
        return function(item, **shared)

    @ray.method(concurrency_group="answers")
    def answer(self) -> None:
        """Show that this process is alive."""


def map_on_ray(
    function: Callable[..., Result],
    items: Sequence[Item],
    *,
    resources: Resources,
    limits: Limits,
    **shared: object,
) -> Iterator[tuple[Item, Result | Failure]]:
    """Yield each item with `function(item, **shared)`, in the order in which workers finish.

    The item of a worker that died, or stood still for `heartbeat_s`, is given to another, up to
    `max_retries` times; then it fails.

    Raises:
        OSError: a folder cannot be written.
        SweepFolderError: a folder is damaged.
    """
    caller: Any = ray.remote(  # type: ignore[call-overload]
        num_cpus=resources.cpus_per_trial,
        num_gpus=resources.gpus_per_trial,
        concurrency_groups={"answers": 1},
    )(_Caller)
    references = {name: ray.put(value) for name, value in shared.items()}
    waiting = [(item, limits.max_retries) for item in reversed(items)]
    running: dict[Any, tuple[Item, int, Any]] = {}
    idle: list[Any] = []
    answers, n_at_once = Answers(limits.heartbeat_s), n_workers(resources)
    try:
        while waiting or running:
            while waiting and len(running) < n_at_once:
                item, n_retries = waiting.pop()
                actor = idle.pop() if idle else caller.remote()
                call = actor.call.remote(function, item, **references)
                running[call] = item, n_retries, actor
            done, _ = ray.wait(list(running), num_returns=1, timeout=answers.every_s)
            for call in done:
                item, n_retries, actor = running.pop(call)
                outcome = _outcome(call)
                has_died = isinstance(outcome, Failure) and outcome.kind == "worker-died"
                if not has_died:
                    idle.append(actor)
                if has_died and n_retries > 0:
                    waiting.append((item, n_retries - 1))
                else:
                    yield item, STOOD_STILL if has_died and actor in answers.ended else outcome
            answers.look(actor for _, _, actor in running.values())
    finally:
        for actor in (*idle, *(actor for _, _, actor in running.values())):
            ray.kill(actor)


def _outcome(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if is_of_folder(cause):
            raise cause from error
        return classify(cause)
    except RayError as error:
        return Failure(kind="worker-died", reason=f"the worker died: {error}")
