"""Sweeps without Ray: the same folder, the same bookkeeping, and errors where they can be seen."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import SoftFileLease
from optuna.trial import TrialState
from rich.console import Console
from torch import Tensor, nn

from generalist_core.validation import InvalidConfigError
from search.api.sweep import resume, sweep
from search.config import Resources, SuccessiveHalving, SweepConfig
from search.errors import SweepFolderError, SweepInterruptedError
from search.files import read_json, read_sealed_json
from search.folders import SweepFolder
from search.study.folder import Sweep, open_sweep
from tests.helpers.problems import tiny_dataset
from tests.helpers.searches import Noting
from tests.helpers.tiny import tiny_config

pytestmark = pytest.mark.slow

DATA = tiny_dataset()
QUIET = Console(quiet=True)
LOCAL = SweepConfig(
    base=replace(tiny_config(), epochs=4),
    space="smoke",
    trials=4,
    sampler="random",
    early_stopping=None,
    resources=Resources(local=True),
)


class Failing(nn.Module):
    """Raises from the call `at` of a training on."""

    def __init__(self, error: BaseException, at: int) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 2)
        self.error, self.at, self.n_calls = error, at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_calls += self.training
        if self.n_calls > self.at:
            raise self.error
        logits: Tensor = self.linear(x.flatten(1))
        return logits


class Models:
    """Makes models; number `faulty` raises, and the first two serve the preflight."""

    def __init__(self, error: BaseException, *, faulty: int, at: int = 0) -> None:
        self.error, self.faulty, self.at = error, faulty, at
        self.n = 0

    def __call__(self, n_classes: int, shape: Any) -> nn.Module:
        self.n += 1
        return Failing(self.error, self.at if self.n == self.faulty else 10**9)


def accuracies(found: Sweep) -> list[tuple[str, Any, dict[str, float]]]:
    return [(p.trial, p.mixing_ratio, dict(p.accuracies)) for p in found.results.points()]


def test_a_local_sweep_has_all_that_a_sweep_has(tmp_path: Path) -> None:
    n_threads = torch.get_num_threads()
    request = replace(LOCAL, early_stopping=SuccessiveHalving(eta=2, first_rung=2), repeats=1)
    found = sweep(request, tmp_path / "out", data=DATA, console=QUIET)
    counts = found.counts
    assert (counts.total, counts.failed, counts.unfinished) == (4, 0, 0)
    assert counts.completed + counts.stopped_early == 4
    inside = {path.name for path in found.folder.iterdir()}
    assert {"sweep.json", "study.journal", "report.html", "front.json"} <= inside
    rows = read_sealed_json(SweepFolder(found.folder).repeats)["repeats"]
    assert {row["trial"] for row in rows} == {point.trial for point in found.front.points}
    assert torch.get_num_threads() == n_threads
    assert open_sweep(found.folder).hypervolume == found.hypervolume


def test_ray_is_not_imported(tmp_path: Path) -> None:
    code = f"""
import sys
from search.cli.main import main
out = {str(tmp_path / "out")!r}
run = ["--epochs", "1", "--n-train", "64", "--n-validation", "20", "--width", "2", "--repeats", "1"]
run += ["--local", "--space", "smoke", "--trials", "1", "--quiet"]
assert main(["sweep", "--out", out, *run]) == 0
assert main(["resume", out, "--trials", "2", "--quiet"]) == 0
assert main(["front", out, "--json"]) == 0
assert main(["explain", out, "0"]) == 0
assert main(["report", out]) == 0
print([name for name in sys.modules if name == "ray" or name.startswith("ray.")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_checkout_without_ray_and_git_is_enough(tmp_path: Path) -> None:
    """And a sweep that is not local says what is missing."""
    code = f"""
import importlib.metadata as metadata, sys
sys.modules["ray"] = None
installed = metadata.version
def version(package):
    if package in ("ray", "generalist-search"):
        raise metadata.PackageNotFoundError(package)
    return installed(package)
metadata.version = version
from search.cli.main import main
run = ["--epochs", "1", "--n-train", "64", "--n-validation", "20", "--width", "2", "--quiet"]
run += ["--space", "smoke", "--trials", "1"]
assert main(["sweep", "--local", "--out", {str(tmp_path / "out")!r}, *run]) == 0
assert main(["sweep", "--out", {str(tmp_path / "other")!r}, *run]) == 2
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "must have Ray unless it is local" in done.stderr
    assert not (tmp_path / "other").exists()
    environment = read_json(tmp_path / "out" / "sweep.json")["environment"]
    assert environment["ray"] == environment["generalist-search"] == "not installed"
    assert environment["git"] == "unknown"


CUSTOM_SPACE = """
from spaces import tune_choice, tune_float

def mine(trial, base):
    if trial.suggest_float("lr", 0.01, 0.5, log=True) > 0.08:
        raise ValueError("not wanted")
    config = tune_float(trial, base, "mixing.decay", 0.5, 0.99)
    return tune_choice(trial, config, "batch_size", [8, 16])
"""


def test_a_space_that_raises_costs_those_trials_only_and_a_resume_asks_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The space and the storage are named by paths from one folder, and found from another."""
    (tmp_path / "my_space.py").write_text(CUSTOM_SPACE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    base = replace(LOCAL.base, epochs=2)
    request = replace(LOCAL, base=base, space="my_space.py:mine", storage="sqlite:///study.db")
    request = replace(request, trials=6)
    found = sweep(request, "out", data=DATA, console=QUIET)
    failed = found.results.failures()
    assert {failure.kind for failure in failed.values()} == {"invalid"}
    assert all("ValueError: not wanted (my_space.py" in f.reason for f in failed.values())
    assert 0 < len(failed) < found.counts.total == 6
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = resume(found.folder, replace(found.config, trials=9), data=DATA, console=QUIET)
    assert again.counts.total == 9
    monkeypatch.chdir(tmp_path)
    resume("out", replace(request, trials=10), data=DATA, console=QUIET)


@pytest.mark.parametrize("kind", ["error", "out-of-memory"])
def test_a_trial_that_fails_is_recorded_and_the_others_continue(kind: str, tmp_path: Path) -> None:
    error = RuntimeError("planted") if kind == "error" else MemoryError("planted")
    models = Models(error, faulty=3)
    found = sweep(LOCAL, tmp_path / "out", data=DATA, model=models, console=QUIET)
    assert found.results.failure_kinds() == {kind: 1}
    assert found.counts.completed == 3


def test_debugging_raises_the_error_itself_and_a_resume_continues(tmp_path: Path) -> None:
    planted, folder = RuntimeError("planted"), tmp_path / "out"
    with pytest.raises(RuntimeError, match="planted") as raised:
        sweep(LOCAL, folder, data=DATA, model=Models(planted, faulty=3), console=QUIET, debug=True)
    assert raised.traceback[-1].name == "forward"
    assert open_sweep(folder).counts.unfinished == 1
    found = resume(folder, data=DATA, model=Models(planted, faulty=0), console=QUIET)
    assert (found.counts.total, found.counts.completed) == (4, 4)


def test_ctrl_c_in_an_epoch_leaves_the_trial_for_a_resume(tmp_path: Path) -> None:
    """The final result is the same as without it."""
    models = Models(KeyboardInterrupt(), faulty=3, at=1)
    with pytest.raises(SweepInterruptedError, match="resume"):
        sweep(LOCAL, tmp_path / "out", data=DATA, model=models, console=QUIET)
    left = open_sweep(tmp_path / "out").ledger.study.get_trials()
    assert [trial.state for trial in left if "sibling" not in trial.user_attrs][-1] == (
        TrialState.WAITING
    )
    whole = Models(RuntimeError(), faulty=0)
    found = resume(tmp_path / "out", data=DATA, model=whole, console=QUIET)
    once = sweep(LOCAL, tmp_path / "once", data=DATA, model=whole, console=QUIET)
    assert accuracies(found) == accuracies(once)


class Interrupting(io.StringIO):
    """Interrupts this process when the end of a trial is printed."""

    def write(self, text: str) -> int:
        if "trial 0000" in text:
            os.kill(os.getpid(), signal.SIGTERM)  # a process in the background ignores SIGINT
        return super().write(text)


def test_the_front_is_not_repeated_after_a_signal(tmp_path: Path) -> None:
    request, console = replace(LOCAL, trials=1, repeats=1), Console(file=Interrupting())
    with pytest.raises(SweepInterruptedError, match="resume"):
        sweep(request, tmp_path / "out", data=DATA, console=console)
    files = SweepFolder(tmp_path / "out")
    assert open_sweep(files.root).counts.completed == 1
    assert not files.repeats.exists()
    resume(files.root, data=DATA, console=QUIET)
    assert files.repeats.exists()


def test_a_sweep_that_began_at_the_same_time_is_not_overwritten(tmp_path: Path) -> None:
    """The other one fills the folder while this one waits for a sign of its life."""
    files = SweepFolder(tmp_path)
    other = SoftFileLease(files.lease, lease_duration=60, heartbeat_interval=59)
    with ThreadPoolExecutor() as pool:
        with other:
            before = tmp_path.stat().st_mtime_ns
            ours = pool.submit(sweep, LOCAL, tmp_path, data=DATA, console=QUIET)
            while tmp_path.stat().st_mtime_ns == before:
                time.sleep(0.01)
            files.request.write_text("of the other")
        with pytest.raises(SweepFolderError, match="must be new or empty"):
            ours.result()
    assert files.request.read_text() == "of the other"


def test_a_time_budget_ends_a_local_sweep(tmp_path: Path) -> None:
    request = replace(LOCAL, base=replace(LOCAL.base, epochs=2000), time_budget_s=1.0)
    found = sweep(request, tmp_path / "out", data=DATA, console=QUIET)
    assert (found.counts.completed, found.counts.unfinished) == (0, 1)


@pytest.mark.parametrize("other", [{"workers": 2}, {"address": "auto"}])
def test_local_goes_with_one_worker_and_no_cluster(other: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError, match=r"local.*workers=.*Leave these out"):
        Resources(local=True, **other)


@pytest.mark.usefixtures("local_ray")
def test_a_local_sweep_finds_what_one_on_ray_does_and_either_ends_the_other(tmp_path: Path) -> None:
    on_ray = replace(LOCAL, resources=Resources(workers=1), round_size=1)
    ray_first = sweep(replace(on_ray, trials=2), tmp_path / "ray", data=DATA, console=QUIET)
    local = replace(on_ray, resources=Resources(local=True))
    local_first = sweep(replace(local, trials=2), tmp_path / "local", data=DATA, console=QUIET)
    assert json.dumps(accuracies(ray_first)) == json.dumps(accuracies(local_first))
    ended = [
        resume(tmp_path / "ray", local, data=DATA, console=QUIET),
        resume(tmp_path / "local", on_ray, data=DATA, console=QUIET),
    ]
    assert ended[0].counts.completed == 4
    assert accuracies(ended[0]) == accuracies(ended[1])


def test_callbacks_follow_a_sweep_and_its_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that fails is left out from then on, and the sweep goes on."""

    class Breaking(Noting):
        def on_metrics(self, trial: str, _: Mapping[str, Any]) -> None:
            raise OSError("planted")

    first, breaking, later = Noting(), Breaking(), Noting()
    config = replace(LOCAL, trials=2)
    callbacks = [breaking, first]
    sweep(config, tmp_path / "out", data=DATA, callbacks=callbacks, console=QUIET)
    assert [told for told in first.told if told[0] != "metrics"] == [
        ("begun", "0000"),
        ("completed", "0000"),
        ("begun", "0001"),
        ("completed", "0001"),
        ("closed", None),
    ]
    assert first.told.count(("metrics", "0000")) >= 4
    assert breaking.told == [("begun", "0000")]
    assert "The callback Breaking has stopped" in caplog.text
    more = replace(config, trials=3)
    resume(tmp_path / "out", more, data=DATA, callbacks=[later], console=QUIET)
    assert {trial for _, trial in later.told} == {"0002", None}


def test_a_callback_must_be_an_object_of_the_protocol(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"must be objects of .*, but got <class"):
        sweep(LOCAL, tmp_path / "out", data=DATA, callbacks=[Noting], console=QUIET)  # type: ignore[list-item]
    assert not (tmp_path / "out").exists()
