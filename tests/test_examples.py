"""The examples run, and stay short."""

from __future__ import annotations

import ast
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.cli.main import main
from search.files import read_json
from spaces import load_space, paper_suggestion
from tests import ROOT
from tests.helpers.tiny import tiny_config

EXAMPLES = sorted(p for p in (ROOT / "examples").glob("*.*") if p.suffix != ".ipynb")
FASHION = Path(os.environ.get("DATA", "/usr/share/datasets/fashion-mnist"))


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Runs a script as its own program, in this process; returns the lines that it prints."""

    def run_script(script: str, *arguments: str) -> list[str]:
        path = str(ROOT / "examples" / script)
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run_script


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_under_forty_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 40


def test_the_space_of_the_example_can_be_searched() -> None:
    params, _ = paper_suggestion(
        load_space(f"{ROOT}/examples/custom_space.py:space"), tiny_config()
    )
    assert "experts.natural.optimizer.lr" in params


def test_the_sweep_in_a_file_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--file", f"{ROOT}/examples/sweep.yaml", "--print-file"]) == 0
    assert "trials: 8" in capsys.readouterr().out


@pytest.mark.slow
def test_one_training(run: Callable[..., list[str]]) -> None:
    lines = run("train_one.py")
    assert [line.split()[0] for line in lines[-5:]] == ["0.0", "0.25", "0.5", "0.75", "1.0"]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_custom_model_and_data(tmp_path: Path, run: Callable[..., list[str]]) -> None:
    lines = run("custom_model_and_data.py", str(tmp_path / "out"))
    assert any("natural" in line for line in lines)
    assert (tmp_path / "out" / "front.png").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_custom_loss_and_attack_reach_rays_workers(
    tmp_path: Path, run: Callable[..., list[str]]
) -> None:
    (reason,) = run("custom_loss_and_attack.py", str(tmp_path / "out"))
    assert "knee" in reason or "none above the line" in reason
    request = (tmp_path / "out" / "sweep.json").read_text()
    assert "custom_loss_and_attack.py:attack" in request


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_digits_in_twenty_lines(tmp_path: Path, run: Callable[..., list[str]]) -> None:
    lines = run("digits.py", str(tmp_path / "out"))
    reasons = ("The knee of", "The largest product of", "The only point of")
    assert sum(line.startswith(reasons) for line in lines) == 1
    assert (tmp_path / "out" / "knee.pt.json").exists()
    assert len((ROOT / "examples" / "digits.py").read_text().splitlines()) <= 20


@pytest.mark.parametrize("name", ["fashion_mnist.sh", "cifar10.sh", "several_norms.sh"])
def test_a_script_can_be_parsed(name: str) -> None:
    """That its commands are accepted, tests/test_docs.py checks."""
    subprocess.run(["sh", "-n", str(ROOT / "examples" / name)], check=True)


def shown(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell of a notebook as its kernel does; returns the value of its last expression."""
    module = ast.parse(cell)
    assert isinstance(module.body[-1], ast.Expr)
    last = ast.Expression(module.body.pop().value)  # type: ignore[attr-defined]
    exec(compile(module, "cell", "exec"), names)
    return eval(compile(last, "cell", "eval"), names)


@pytest.mark.slow
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the front and the choice as tables, and attacks the model that it exported."""
    cells = read_json(ROOT / "examples" / "notebook.ipynb")["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert sum(len(cell.splitlines()) for cell in code) < 40
    assert all(cell.get("outputs", []) == [] for cell in cells)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    _, sweep, trials, picked, _, measured = [shown(cell, names) for cell in code]
    assert sweep._repr_html_().count("<tr>") == 1 + len(sweep.front.points)
    assert len(trials) == 4
    assert picked.point.name in picked._repr_html_()
    assert 0 <= measured["robust"] < measured["natural"] <= 1


@pytest.mark.slow
def test_several_norms(tmp_path: Path) -> None:
    out, path = tmp_path / "out", f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    small = ["--n-train", "100", "--n-validation", "50", "--epochs", "2", "--trials", "1"]
    subprocess.run(
        ["sh", str(ROOT / "examples" / "several_norms.sh"), str(out), *small, "--local"],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": path, "ATTACKS": "pgd-2"},
    )
    card = read_json(out / "knee.pt.json")
    assert card["experts"] == ["natural", "linf", "l2"]
    assert card["objectives"] == ["natural", "union"]
    assert list(card["test"]["suites"]) == ["linf", "l2"]


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason=f"no Fashion-MNIST in {FASHION}")
def test_fashion_mnist(tmp_path: Path) -> None:
    out, path = tmp_path / "out", f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    small = ["--n-train", "100", "--n-validation", "50", "--epochs", "2", "--trials", "1"]
    subprocess.run(
        ["sh", str(ROOT / "examples" / "fashion_mnist.sh"), str(out), *small],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": path, "DATA": str(FASHION)},
    )
    assert (out / "knee.pt.json").exists()
