"""The commands, from their arguments to what they print and write."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from generalist_core.config.codec import load_config
from search.cli.main import main
from search.study.storage import open_storage
from tests.helpers.command_line import TINY, parse


def test_train_prints_one_json_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", *TINY, "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [p["mixing_ratio"] for p in document["points"]][:3] == [0.0, 0.5, 1.0]
    assert document["forward_images"] > 0
    there = {path.name for path in out.iterdir()}
    assert {"sweep.json", "study.journal", "tensorboard", "trials"} == there


def test_train_says_where_its_results_are_and_what_may_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my run"
    assert main(["train", *TINY, "--out", str(out)]) == 0
    *_, written, watch, following, search = capsys.readouterr().out.splitlines()
    assert f"{out}/trials/0000/points.json" in written
    assert f"{out}/trials/0000/averages.pt" in written
    assert watch.endswith(f"tensorboard --logdir '{out}/tensorboard'")
    assert f"generalist-search front '{out}'; also" in following
    for command in ("front", "resume"):
        assert main([command, str(out), "--json"]) == 0
        (trial,) = {point["trial"] for point in json.loads(capsys.readouterr().out)["points"]}
        assert trial == "0000"
    program, *words = shlex.split(search.removeprefix("Search around it: "))
    assert program == "generalist-search"
    options = parse(words).params
    assert options["problem__config"] == out / "trials/0000/config.json"
    assert load_config(options["problem__config"]).data.n_train == 100
    assert not options["training__out"].exists()
    assert main(["train", *TINY, "--out", str(tmp_path / "quiet"), "--quiet"]) == 0
    assert capsys.readouterr().out.count("\n") == out_points(tmp_path / "quiet")


def out_points(folder: Path) -> int:
    """How many points a training released."""
    return len(json.loads((folder / "trials/0000/points.json").read_text())["points"])


def requested(folder: Path) -> dict[str, Any]:
    """The request that a sweep has written."""
    found: dict[str, Any] = json.loads((folder / "sweep.json").read_text())["request"]
    return found


@pytest.mark.slow
def test_a_sweep_in_which_nothing_succeeds_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ["--set", "experts.robust.optimizer.lr=1e38", "--space", "mixing", "--trials", "2"]
    bad += ["--local"]
    assert main(["sweep", *TINY, *bad, "--eta", "4", "--out", str(tmp_path / "out")]) == 1
    assert requested(tmp_path / "out")["early_stopping"]["eta"] == 4.0
    error = capsys.readouterr().err
    assert "No trial succeeded" in error
    assert "DivergedError: Expert 'robust' diverged" in error


@pytest.mark.slow
def test_time_that_is_up_before_the_first_trial_has_ended_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--epochs", "2000", "--space", "smoke", "--trials", "2", "--local"]
    out = str(tmp_path / "out")
    assert main(["sweep", *TINY, *options, "--time-budget", "0.1", "--out", out]) == 1
    error = capsys.readouterr().err
    assert (
        f"before the first trial had ended. Nothing is lost: generalist-search resume {out}"
        in error
    )
    assert "failed" not in error


@pytest.mark.slow
def test_a_sweep_prints_its_front_and_front_prints_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    options = ["--space", "mixing", "--trials", "2", "--no-early-stopping", "--local", "--json"]
    assert main(["sweep", *TINY, *options, "--out", out]) == 0
    assert requested(tmp_path / "out")["early_stopping"] is None
    first = json.loads(capsys.readouterr().out)
    assert main(["front", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert first["objectives"] == ["natural", "robust"]
    assert first["trials"] == {"completed": 2, "stopped_early": 0, "failed": 0, "unfinished": 0}
    assert main(["front", out]) == 0
    assert "Hypervolume" in capsys.readouterr().out


OWN_MODEL = """
from torch import nn

def build(n_classes, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], n_classes))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_relative_paths_reach_the_workers_and_later_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own.py").write_text(OWN_MODEL)
    monkeypatch.chdir(tmp_path)
    few = ["--n-train", "100", "--n-validation", "50", "--epochs", "2", "--trials", "2"]
    sweep = ["sweep", *few, "--space", "smoke", "--model", "own.py:build", "--out", "out"]
    assert main([*sweep, "--workers", "99", "--storage", f"sqlite:///{tmp_path}/a.db"]) == 0
    assert "0 failed" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "elsewhere")
    attacks = ["--attacks", "fgsm", "--n-images", "20"]
    assert main(["verify", str(tmp_path / "out"), *attacks]) == 0
    assert "Hypervolume" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["nonsense", "sqlite:///file:{here}/a.db?mode=ro&uri=true"])
def test_a_storage_that_cannot_be_written_is_refused_before_any_work(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_storage(f"sqlite:///{tmp_path}/a.db", tmp_path)
    out, url = tmp_path / "out", url.format(here=tmp_path)
    assert main(["sweep", *TINY, "--storage", url, "--out", str(out)]) == 2
    assert "must be an Optuna URL of a database that can be written" in capsys.readouterr().err
    assert not out.exists()
