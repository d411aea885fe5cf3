"""The command line: what it makes of options, and what it says to bad ones."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from generalist_core.config.codec import to_json
from search.cli.main import main
from tests.helpers.tiny import tiny_config

TINY = [
    "--n-train",
    "100",
    "--n-validation",
    "50",
    "--width",
    "2",
    "--epochs",
    "2",
    "--batch-size",
    "16",
]

BAD_SWEEPS = {
    "data set": (["--data", "cifer10"], "cifar10.*cifer10"),
    "no data there": (["--data", "cifar10", "--data-root", "/nowhere"], "--data-root.*--download"),
    "space": (["--space", "ful"], "smoke, mixing, experts, full.*'ful'"),
    "sampler": (["--sampler", "tpa"], "tpe, nsga2.*'tpa'"),
    "epsilon below 0": (["--epsilon", "-0.1"], "epsilon >= 0.*-0.1"),
    "epsilon in 255ths": (["--epsilon", "8"], "did you mean 8/255"),
    "mixing ratio": (["--set", "mixing.ratio.values=[1.2, 0.4]"], "mixing ratio <= 1.*1.2"),
    "sync start": (["--set", "sync.start_epoch=99"], "sync.start_epoch < epochs.*99"),
    "one expert": (["--set", 'experts=[{"name": "natural"}]'], "two or more experts.*natural"),
    "field": (["--set", "experts.natural.lr=1"], "'lr'.*ExpertConfig has"),
    "type of a field": (["--set", "epochs=many"], "epochs is of type int.*'many'"),
    "set without value": (["--set", "epochs"], "PATH=VALUE"),
    "trials": (["--trials", "0"], "trials > 0"),
    "eta": (["--eta", "1"], "eta > 1.*eta=1.0"),
    "model": (["--model", "resnet19"], "model.*resnet19"),
    "no such GPU": (["--gpus-per-trial", "1"], "0 GPUs.*--device cpu"),
    "config": (["--config", "/nowhere.json"], "/nowhere.json"),
    "config and preset": (["--config", "a.json", "--preset", "paper"], "--config without --preset"),
    "validation": (["--n-validation", "5000"], "5000 of"),
}


@pytest.mark.parametrize(("options", "message"), BAD_SWEEPS.values(), ids=BAD_SWEEPS)
def test_bad_input_is_refused_before_any_work(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["sweep", *options, "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert re.search(message, printed.err)
    assert not out.exists()


def test_unknown_options_and_commands_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["sweep", "--trails", "3"], ["sweeep"], []):
        with pytest.raises(SystemExit) as exit_info:
            main(arguments)
        assert exit_info.value.code == 2
        assert "--help" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["front", "report"])
def test_a_folder_without_a_sweep_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert "sweep.json must exist" in capsys.readouterr().err


def test_a_folder_in_use_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["train", *TINY, "--out", str(tmp_path)]) == 2
    assert "new or empty" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_train_prints_one_json_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", *TINY, "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [p["mixing_ratio"] for p in document["points"]][:3] == [0.0, 0.5, 1.0]
    assert document["forward_images"] > 0
    there = {path.name for path in out.iterdir()}
    assert {"config.json", "metrics.jsonl", "averages.pt", "points.json", "tensorboard"} == there


def test_a_config_file_and_fields_set_on_top(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(to_json(tiny_config()))
    options = ["--config", str(tmp_path / "config.json"), "--set", "mixing.decay=0.5"]
    options += ["--seed", "5", "--epochs", "3"]
    assert main(["train", *options, "--out", str(tmp_path / "run")]) == 0
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["epochs"], written["seed"], written["mixing"]["decay"]) == (3, 5, 0.5)
    assert "mixing ratio 1.0" in capsys.readouterr().out


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
def test_a_sweep_prints_its_front_and_front_prints_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    options = ["--space", "mixing", "--trials", "2", "--no-early-stopping", "--json"]
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


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[]"], ids=["binary", "torn", "a list"])
def test_a_damaged_configuration_is_named(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    assert (
        main(["train", "--config", str(tmp_path / "bad.json"), "--out", str(tmp_path / "o")]) == 2
    )
    assert "must" in capsys.readouterr().err


def test_a_storage_that_is_none_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["sweep", *TINY, "--storage", "nonsense", "--out", str(out)]) == 2
    assert "must be an Optuna URL" in capsys.readouterr().err
    assert not out.exists()
