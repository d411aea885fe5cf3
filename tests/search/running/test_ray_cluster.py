"""Clusters: what fits, the loss of a machine or a whole cluster, and who can reach a local Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.thirdparty_files import psutil

from generalist_core.config import DataConfig, ModelConfig, TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.api.sweep import resume, sweep
from search.config import Limits, Resources, SweepConfig
from search.running.ray_cluster import (
    MAX_FOLDER_BYTES,
    fits_on,
    map_on_ray,
    temporary_folder,
)
from search.running.ray_heartbeats import STOOD_STILL
from search.running.trial import read_metrics
from search.study.folder import Sweep, open_sweep
from tests import ROOT

N_EPOCHS = 40
PATIENCE_S = 240


@pytest.mark.parametrize(
    ("setting", "law"),
    [
        (
            {"gpus_per_trial": 2.0},
            r"in \[0, 1\].*but got 2\.0\. Give at most 1; more GPUs run more",
        ),
        ({"gpus_per_trial": 1.001}, r"in \[0, 1\].*but got 1\.001"),
        ({"gpus_per_trial": -1.0}, r"in \[0, 1\].*but got -1"),
        ({"gpus_per_trial": float("nan")}, "must be a finite number"),
        ({"cpus_per_trial": 0.0}, "cpus_per_trial"),
        ({"address": "ray://10.0.0.1:10001"}, "auto or HOST:PORT"),
        ({"address": "local"}, "auto or HOST:PORT"),
        ({"address": "10.0.0.1"}, "auto or HOST:PORT"),
        ({"workers": 0}, "workers > 0"),
    ],
)
def test_resources_that_ray_would_refuse_are_refused(setting: dict[str, Any], law: str) -> None:
    with pytest.raises(InvalidConfigError, match=law):
        Resources(**setting)


@pytest.mark.parametrize(
    ("machine", "cpus", "gpus", "n"),
    [
        ({"CPU": 4, "GPU": 0}, 1, 0, 4),
        ({"CPU": 3, "GPU": 0}, 2, 0, 1),
        ({"CPU": 0, "GPU": 0}, 1, 0, 0),
        ({"CPU": 1, "GPU": 0}, 0.1, 0, 10),
        ({"CPU": 8, "GPU": 2}, 1, 0.5, 4),
        ({"CPU": 8, "GPU": 2}, 1, 0.4, 4),  # two on each GPU, as no trial may lie across both
        ({"CPU": 3, "GPU": 2}, 1, 0.5, 3),
        ({"CPU": 8, "GPU": 5}, 1, 1, 5),
        ({"CPU": 8, "GPU": 0}, 1, 0.5, 0),
    ],
)
def test_a_trial_fits_one_machine_and_a_fraction_one_gpu(
    machine: dict[str, float], cpus: float, gpus: float, n: int
) -> None:
    assert fits_on(machine, Resources(cpus_per_trial=cpus, gpus_per_trial=gpus)) == n


def request(address: str | None) -> SweepConfig:
    """Four trials in two rounds; on a cluster they ask for half a GPU, and train on the CPU."""
    data = DataConfig(n_train=100, n_validation=50)
    config: TrainConfig = short(data=data, model=ModelConfig(width=4), epochs=N_EPOCHS)
    config = dataclasses.replace(config, batch_size=16, device="cpu")
    return SweepConfig(
        base=replace_at(config, "evaluation.n_refinements", 0),
        space="smoke",
        trials=4,
        sampler="random",
        early_stopping=None,
        shares_warmups=False,
        round_size=2,
        resources=Resources(
            address=address, workers=2, gpus_per_trial=0.0 if address is None else 0.5
        ),
    )


@contextlib.contextmanager
def a_cluster() -> Iterator[Cluster]:
    """A head that trains nothing and a machine that claims to have two GPUs.

    A lost machine is noticed after seconds instead of half a minute.
    """
    soon = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 6,
    }
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=2, num_gpus=2)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def outcome(found: Sweep) -> list[tuple[str, dict[str, float]]]:
    return [(point.name, point.accuracies) for point in found.results.points()]


def epochs(trial: Path) -> list[int]:
    return [line["epoch"] for line in read_metrics(trial)]


def under_way(folder: Path) -> set[str]:
    """The trials that are about half trained."""
    middle = range(N_EPOCHS // 4, N_EPOCHS // 2)
    return {trial.name for trial in folder.glob("trials/*") if len(read_metrics(trial)) in middle}


def wait_for(what: Callable[[], set[str]]) -> set[str]:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline, "the wait was in vain"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The sweep without Ray: in rounds it does not matter which worker trains a trial."""
    here = dataclasses.replace(request(None), resources=Resources(local=True))
    return sweep(here, tmp_path_factory.mktemp("undisturbed"))


def check_nothing_is_lost(found: Sweep, disturbed: set[str], undisturbed: Sweep) -> None:
    """Law 7, and that trials resumed from checkpoints: anew, their first epoch counts a loss."""
    assert found.counts.total == found.counts.completed == 4
    for number in range(4):
        trial = found.folder / "trials" / f"{number:04d}"
        assert epochs(trial) == list(range(1, N_EPOCHS + 1))
    for name in disturbed:
        assert read_metrics(found.folder / "trials" / name)[0]["lost_forward_images"] == 0
    assert outcome(found) == outcome(undisturbed)


def sweep_elsewhere(address: str | None, folder: Path) -> subprocess.Popen[bytes]:
    """Start the sweep in a process of its own, which gives up a lost cluster after seconds."""
    code = (
        "import sys; from pathlib import Path\n"
        "from search import sweep\n"
        "from tests.search.running.test_ray_cluster import request\n"
        "sweep(request(sys.argv[2] or None), Path(sys.argv[1]))"
    )
    # A sweep without an address starts its own Ray, whatever cluster the environment names.
    elsewhere = {"RAY_ADDRESS": "127.0.0.1:1"} if address is None else {}
    environment = {**os.environ, **elsewhere, "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    command = [sys.executable, "-c", code, str(folder), address or ""]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray")
def test_a_sweep_survives_a_lost_machine_and_then_a_lost_cluster(
    tmp_path: Path, undisturbed: Sweep
) -> None:
    """In the first round the only machine dies with its trials, until another joins.

    In the second round the head dies, and everything with it; `resume` joins another cluster.
    """
    with a_cluster() as cluster:
        (machine,) = cluster.worker_nodes
        process = sweep_elsewhere(cluster.address, tmp_path)
        first = wait_for(lambda: under_way(tmp_path))
        cluster.remove_node(machine, allow_graceful=False)
        cluster.add_node(num_cpus=2, num_gpus=2)
        second = wait_for(lambda: under_way(tmp_path) - first)
        cluster.shutdown()
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode != 0
    with a_cluster() as cluster:
        config = open_sweep(tmp_path).config
        there = dataclasses.replace(config.resources, address=cluster.address)
        found = resume(tmp_path, dataclasses.replace(config, resources=there))
    check_nothing_is_lost(found, first | second, undisturbed)


@pytest.mark.slow
def test_a_local_sweep_listens_on_loopback_only(tmp_path: Path) -> None:
    process = sweep_elsewhere(None, tmp_path)
    try:
        wait_for(lambda: under_way(tmp_path))
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
        listening = {
            (member.name(), connection.laddr.ip)
            for member in family
            for connection in member.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    assert {name for name, ip in listening if not is_loopback(ip)} == set()


def is_loopback(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def stop_once(item: Path, *, times: int) -> int:
    """Stop this process, unless that was done often enough for the item; returns its id."""
    marks = len(list(item.parent.glob(f"{item.name}.*")))
    if marks < times:
        item.with_suffix(f".{marks}").touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_an_item_whose_worker_stands_still_is_given_to_another_and_at_last_fails(
    tmp_path: Path,
) -> None:
    limits, resources = Limits(heartbeat_s=10.0, max_retries=1), Resources(workers=1)
    items = [tmp_path / "a", tmp_path / "b"]
    once = dict(map_on_ray(stop_once, items, resources=resources, limits=limits, times=1))
    assert all(isinstance(process, int) for process in once.values())
    assert list(once) == items
    for item in tmp_path.iterdir():
        item.unlink()
    ((_, outcome),) = map_on_ray(stop_once, items[:1], resources=resources, limits=limits, times=9)
    assert outcome == STOOD_STILL


def thread_of(_: int) -> int:
    """The thread that calls, after a pause in which an idle one would take the next call."""
    time.sleep(0.3)
    return threading.get_ident()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_worker_calls_in_one_thread() -> None:
    """Torch keeps the number of threads, among others, per thread."""
    limits, resources = Limits(heartbeat_s=4.0), Resources(workers=1)
    found = map_on_ray(thread_of, range(6), resources=resources, limits=limits)
    assert len({thread for _, thread in found}) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_an_item_that_takes_long_keeps_its_worker() -> None:
    limits, resources = Limits(heartbeat_s=8.0, max_retries=0), Resources(workers=1)
    assert list(map_on_ray(time.sleep, [10.0], resources=resources, limits=limits)) == [
        (10.0, None)
    ]


def test_a_path_that_is_too_long_for_sockets_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * (MAX_FOLDER_BYTES - len("//ray")))
    assert temporary_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * (MAX_FOLDER_BYTES - len("/ray")))
    assert temporary_folder() == "/tmp/ray"
