"""The files for clusters, and the commands in the page about them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from tests import ROOT
from tests.helpers.command_line import parse

DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "clusters.md"
TEXTS = [*sorted(DEPLOY.iterdir()), PAGE]
LAUNCHER = ["ray-ssh.yaml", "ray-cloud.yaml"]


def test_the_dockerfile_copies_the_whole_program_and_nothing_else() -> None:
    """What is installed is what the metadata and the packages need; the commands are not root's."""
    text = (ROOT / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"(?m)^COPY (.*)$", text) for word in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = metadata["tool"]["setuptools"]["packages"]["find"]["include"]
    project = metadata["project"]
    needed = {project["readme"], *project["license-files"], "pyproject.toml"}
    assert set(copied) == needed | {f"{name.removesuffix('*')}/" for name in packages}
    assert re.search(r'(?m)^ENTRYPOINT \["(.*)"\]$', text)[1] in project["scripts"]  # type: ignore[index]
    assert re.findall(r"(?m)^USER (.*)$", text) == ["1000"]


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def commands(text: str) -> list[list[str]]:
    """The arguments of every `generalist-search` that stands where a command may stand."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"(?m)^[\s#]*(?:exec |.* -- )?generalist-search (.*)$", joined)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("name", LAUNCHER)
def test_rays_launcher_accepts(name: str) -> None:
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(read(name), json.loads(schema.read_text()))


@pytest.mark.parametrize("name", LAUNCHER)
def test_every_machine_of_a_launched_cluster_asks_for_the_token(name: str) -> None:
    config = read(name)
    assert "~/.ray/auth_token" in config["file_mounts"]
    for which in ("head", "worker"):
        starts = [line for line in config[f"{which}_start_ray_commands"] if " start " in line]
        assert len(starts) == 1
        assert starts[0].startswith("RAY_AUTH_MODE=token ")
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])


def test_the_cloud_opens_one_port_to_one_address() -> None:
    (rule,) = read("ray-cloud.yaml")["provider"]["security_group"]["IpPermissions"]
    assert rule["FromPort"] == rule["ToPort"] == 22
    assert [entry["CidrIp"] for entry in rule["IpRanges"]] == ["YOUR_ADDRESS/32"]


def test_the_rayjob_has_what_kuberay_requires() -> None:
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    workers = cluster["workerGroupSpecs"]
    assert all(w["minReplicas"] <= w["replicas"] <= w["maxReplicas"] for w in workers)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in (cluster["headGroupSpec"], *workers):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert "persistentVolumeClaim" in volumes["shared"]
        for container in pod["containers"]:
            assert {"name", "image", "resources", "volumeMounts"} <= set(container)
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts["shared"] == "/shared"
            assert set(mounts) <= set(volumes)


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_can_be_parsed(path: Path) -> None:
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", str(path)], check=True)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_the_command_line_accepts_every_command(path: Path) -> None:
    for arguments in commands(path.read_text()):
        assert parse(arguments)


def test_commands_are_found() -> None:
    text = "`generalist-search`\n  exec generalist-search resume \\\n  OUT # on\n"
    text += "# ray job submit -- generalist-search front A\n"
    assert commands(text) == [["resume", "OUT"], ["front", "A"]]
    assert sum(len(commands(path.read_text())) for path in TEXTS) >= 6


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    named = re.findall(r"(?:deploy|docs|tests|search|examples)/[\w./-]*\w", text)
    linked = re.findall(r"\]\((?!http)([^)#]+)", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing + [link for link in linked if not (path.parent / link).exists()] == []


STAND_INS = {
    "generalist-search": 'echo "$@" >> "$LOG"',
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; SLURM_NODEID=0 exec "$@"',
    "scontrol": 'echo scontrol "$@" >> "$LOG"',
    "ray": f"""echo ray "$@" >> "$LOG"; exec {sys.executable} -m http.server -b "$HEAD" "$PORT" """,
}
"""What SLURM and Ray are to the scripts: `srun` runs a command as node 0, Ray takes a port."""


def run_script(name: str, folder: Path, **environment: str) -> list[str]:
    """The commands that a script ran, with stand-ins for all that it calls."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for program, does in STAND_INS.items():
        (programs / program).write_text(f"#!/bin/sh\n{does}\n")
        (programs / program).chmod(0o755)
    places = {"VENV": str(folder), "LOG": str(folder / "log"), "OUT": str(folder / "out")}
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**os.environ, **places, "PATH": path, **environment}
    shell = (DEPLOY / name).read_text().splitlines()[0].removeprefix("#!")
    subprocess.run(
        [shell, DEPLOY / name], env=environment, cwd=ROOT, check=True, capture_output=True
    )
    return (folder / "log").read_text().splitlines()


def test_the_sweep_script_begins_or_goes_on(tmp_path: Path) -> None:
    begun = run_script("sweep.sh", tmp_path)
    assert begun[0].startswith(f"sweep --address auto --out {tmp_path}/out ")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.json").touch()
    assert run_script("sweep.sh", tmp_path)[1:] == [f"resume {tmp_path}/out --address auto"]


@pytest.mark.slow
def test_the_slurm_script_starts_ray_and_sweeps_on_it(tmp_path: Path) -> None:
    """Ray's head gets what SLURM granted, and the sweep its address."""
    granted = {"SLURM_JOB_ID": "4242", "SLURM_CPUS_PER_TASK": "3", "SLURM_GPUS_ON_NODE": "2"}
    ray_start, begun = run_script(
        "slurm.sh", tmp_path, HEAD="127.0.0.1", USER=str(os.getpid()), **granted
    )
    assert ray_start.startswith("ray start --num-cpus=3 --num-gpus=2 --block --head ")
    assert begun.startswith("sweep --address 127.0.0.1:24242 ")
    Path(f"/tmp/ray-{os.getpid()}").rmdir()
