"""Sweeps with a custom loss and attack: tried first, kept by spaces, bound to their file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from generalist_core.config import CustomAttack, CustomLoss, NamedAttack, TrainConfig
from generalist_core.validation import InvalidConfigError
from search.api.sweep import resume, sweep
from search.api.verify import verify
from search.cli.main import main
from search.config import Resources, SweepConfig, VerifyConfig
from spaces import SPACES
from tests.helpers import custom_functions
from tests.helpers.problems import tiny_dataset, with_expert
from tests.helpers.tiny import tiny_config

QUIET = Console(quiet=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of the user, with custom functions."""
    file = tmp_path / "mine.py"
    file.write_text(Path(custom_functions.__file__).read_text())
    return file


def custom_config(file: Path, attack: str = "pgd", loss: str = "cross_entropy") -> TrainConfig:
    """Trained and evaluated with custom functions."""
    custom_attack = CustomAttack(function=f"{file}:{attack}", epsilon=0.2, forward_images=6)
    custom_loss = CustomLoss(function=f"{file}:{loss}")
    config = with_expert(tiny_config(), "robust", attack=custom_attack, loss=custom_loss)
    evaluated = (NamedAttack(name="robust", attack=custom_attack),)
    return replace(config, evaluation=replace(config.evaluation, attacks=evaluated))


def request(config: TrainConfig) -> SweepConfig:
    local = Resources(local=True)
    return SweepConfig(base=config, space="smoke", trials=2, sampler="random", resources=local)


@pytest.mark.parametrize(
    ("attack", "loss", "message"),
    [
        ("leaves_the_ball", "cross_entropy", "`expert robust` must run.*linf ball of radius 0.2"),
        ("pgd", "detached", "`expert robust` must run.*scalar with a gradient"),
        ("missing", "cross_entropy", "no function 'missing'"),
    ],
)
def test_what_cannot_run_is_reported_before_any_work(
    attack: str, loss: str, message: str, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        sweep(request(custom_config(file, attack, loss)), tmp_path / "out", data=tiny_dataset())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_sweep_is_bound_to_the_file_that_it_began_with(file: Path, tmp_path: Path) -> None:
    data, folder = tiny_dataset(), tmp_path / "out"
    found = sweep(request(custom_config(file)), folder, data=data, console=QUIET)
    assert found.counts.completed == 2
    more = replace(found.config, trials=3)
    written = file.read_text()
    file.write_text(written + "\n# another\n")
    with pytest.raises(InvalidConfigError, match="as it was when the run began"):
        resume(folder, more, data=data, console=QUIET)
    file.write_text(written)
    assert resume(folder, more, data=data, console=QUIET).counts.completed == 3


@pytest.mark.slow
def test_a_front_evaluated_by_a_custom_attack_is_verified_in_its_ball(
    file: Path, tmp_path: Path
) -> None:
    found = sweep(request(custom_config(file)), tmp_path / "out", console=QUIET)
    document = verify(found, VerifyConfig(attacks=("fgsm",), n_images=20), console=QUIET)
    assert {row["name"] for row in document["points"]} == {p.name for p in found.front.points}


@pytest.mark.parametrize("space", SPACES)
def test_no_space_searches_custom_functions(space: str, file: Path) -> None:
    base = with_expert(
        custom_config(file), "natural", loss=CustomLoss(function=f"{file}:cross_entropy")
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        config = SPACES[space](study.ask(), base)
        for before, after in zip(base.experts, config.experts, strict=True):
            assert (after.attack, after.loss) == (before.attack, before.loss)


def test_the_command_line_takes_them(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--epochs", "1", "--n-train", "64", "--n-validation", "20", "--width", "2", "--json"]

    def points(name: str, *options: str) -> list[dict[str, object]]:
        assert main(["train", "--out", str(tmp_path / name), "--quiet", *run, *options]) == 0
        found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["points"]
        return found

    loss = {"type": "CustomLoss", "function": f"{file}:cross_entropy"}
    attack = {
        "type": "CustomAttack",
        "function": f"{file}:pgd",
        "epsilon": 0.2,
        "forward_images": 6,
    }
    options = ("--set", f"experts.robust.loss={json.dumps(loss)}")
    options += ("--set", f"experts.robust.attack={json.dumps(attack)}")
    assert points("custom", *options) == points(
        "built-in", "--set", "experts.robust.attack.steps=3"
    )
