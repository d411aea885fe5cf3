"""The configuration that options, a preset or a file make, and the limits that they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from generalist_core.config import FGSM, PGD, EarlierSettings, TrainConfig
from generalist_core.config.codec import to_json, value_at
from generalist_core.config.norms import with_combined_norms
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.cli.main import main
from search.cli.options import (
    FailureOptions,
    ProblemOptions,
    ResourceOptions,
    SuiteOptions,
    TrainingOptions,
    build_config,
    build_suite,
)
from search.config import Limits, Resources
from tests.helpers.problems import with_expert
from tests.helpers.tiny import tiny_config


def test_a_config_file_and_fields_set_on_top(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(to_json(tiny_config()))
    options = ["--config", str(tmp_path / "config.json"), "--set", "mixing.decay=0.5"]
    options += ["--seed", "5", "--epochs", "3"]
    assert main(["train", *options, "--out", str(tmp_path / "run")]) == 0
    written = json.loads((tmp_path / "run/trials/0000/config.json").read_text())
    assert (written["epochs"], written["seed"], written["mixing"]["decay"]) == (3, 5, 0.5)
    assert "mixing ratio 1.0" in capsys.readouterr().out


def test_options_change_a_preset_and_fields_come_last() -> None:
    problem = ProblemOptions(data="mnist", width=3, epsilon=0.1, download=True)
    training = TrainingOptions(out=Path("out"), epochs=7, set=("epochs=9", "data.flip=true"))
    config = build_config(problem, training)
    assert (config.data.name, config.data.n_validation) == ("mnist", 1000)
    assert config.data.download
    assert config.data.flip
    assert (config.model.width, config.epochs) == (3, 9)
    assert Path(config.data.root).is_absolute()


def built(*assignments: str, norms: Any = None, combine: Any = None, **problem: Any) -> TrainConfig:
    training = TrainingOptions(out=Path("out"), set=assignments, norms=norms, combine=combine)
    return build_config(ProblemOptions(**problem), training)


def test_fields_that_are_bound_together_are_set_together() -> None:
    config = built("model.mean=[0.5]", "model.std=[0.25]", "experts.robust.attack.epsilon=8/255")
    assert (config.model.mean, config.model.std) == ((0.5,), (0.25,))
    assert value_at(config, "experts.robust.attack.epsilon") == 8 / 255
    with pytest.raises(InvalidConfigError, match=r"mean.*std"):
        built("model.mean=[0.5]")


def test_a_folder_may_have_the_name_of_a_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024/05").mkdir(parents=True)
    assert (
        built("data.name=2024/05", "data.root=8/255").data
        == built(data="2024/05", data_root="8/255").data
    )


def test_three_experts_are_set_with_their_ratios() -> None:
    third = '{"name": "mild", "attack": {"type": "FGSM", "epsilon": 0.1}}'
    config = built(
        f'experts=[{{"name": "natural"}}, {third}, {third.replace("mild", "strong")}]',
        "mixing.ratio.values=[[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]",
        "evaluation.release_ratios=[[0.2, 0.3, 0.5]]",
        "evaluation.n_refinements=0",
        "experts.strong.attack.epsilon=0.2",
    )
    assert [expert.name for expert in config.experts] == ["natural", "mild", "strong"]
    assert value_at(config, "experts.2.attack.epsilon") == 0.2
    assert config.mixing.ratio.values[0] == (0.2, 0.3, 0.5)


def test_epochs_and_the_first_sync_of_a_file_are_set_together(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(to_json(tiny_config()))
    training = TrainingOptions(out=Path("out"), epochs=1, set=("sync.start_epoch=0",))
    config = build_config(ProblemOptions(config=file), training)
    assert (config.epochs, config.sync.start_epoch) == (1, 0)


def test_limits_and_resources_change_where_an_option_was_given() -> None:
    limits = Limits(trial_s=9.0, max_retries=1)
    assert FailureOptions().over(limits) == limits
    changed = FailureOptions(epoch_s=5.0, fail_fast=True, may_accumulate=True).over(limits)
    expected = Limits(trial_s=9.0, epoch_s=5.0, max_retries=1, max_failures=1, may_accumulate=True)
    assert changed == expected
    cluster = Resources(workers=8, address="auto", gpus_per_trial=0.5)
    assert ResourceOptions().over(cluster) == cluster
    assert ResourceOptions().over(cluster, local=True) == Resources(gpus_per_trial=0.5, local=True)
    assert ResourceOptions(workers=2).over(cluster).workers == 2


def test_norms_set_experts_and_evaluation_and_fields_come_last() -> None:
    config = built("experts.l2.optimizer.lr=0.02", norms={"linf": None, "l2": 0.6}, data="mnist")
    attacks = [expert.attack for expert in config.experts[1:]]
    assert [(a.norm, a.epsilon) for a in attacks if a is not None] == [("linf", 0.3), ("l2", 0.6)]
    assert [named.name for named in config.evaluation.attacks] == ["linf", "l2"]
    assert config.experts[2].optimizer.lr == 0.02


def test_the_radius_of_a_norm_is_that_of_the_data_that_are_set() -> None:
    assert built("data.name=mnist", norms={"l2": None}).experts[1].attack.epsilon == 2.0  # type: ignore[union-attr]
    with pytest.raises(InvalidConfigError, match="l2 alone for mnist at image_size=14"):
        built("data.image_size=14", norms={"l2": None}, data="mnist")


def test_a_radius_holds_at_all_times() -> None:
    past = EarlierSettings(until=1, attack=PGD(epsilon=0.2, steps=3))
    before = with_expert(short(), "robust", earlier=(past,))
    expert = build_config(ProblemOptions(epsilon=0.1), before=before).experts[1]
    assert [value_at(expert, path) for path in ("attack.epsilon", "earlier.0.attack.epsilon")] == [
        0.1,
        0.1,
    ]


def test_norms_are_combined_if_asked() -> None:
    config = built(norms={"linf": 0.1, "l2": None}, combine="worst")
    assert config == with_combined_norms(built(), {"linf": 0.1, "l2": 1.0}, "worst")
    with pytest.raises(InvalidConfigError, match=r"must come with --norms, but got --combine wor"):
        built(combine="worst")


def test_one_radius_for_all_norms_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"with --norms, but got 0\.1.*--norms linf=0\.1"):
        built(norms={"linf": None}, epsilon=0.1)


def test_a_suite_takes_the_radius_of_its_norm() -> None:
    config = built(norms={"linf": 0.1, "l2": 0.6})
    suites = [build_suite(SuiteOptions(), config, norm) for norm in (None, "l2", "l1")]
    balls = [(suite.norm, suite.epsilon) for suite in suites]
    assert balls == [("linf", 0.1), ("l2", 0.6), ("l1", 0.1)]


def test_a_class_is_named_and_its_fields_are_set_one_by_one() -> None:
    assignments = (
        "experts.robust.attack=FGSM",
        "experts.robust.attack.norm=l2",
        "experts.robust.attack.FGSM.epsilon=8/255",
    )
    attack = built(*assignments).experts[1].attack
    assert attack == FGSM(norm="l2", epsilon=8 / 255)
    with pytest.raises(InvalidConfigError, match="must be complete, but lacks epsilon"):
        built(*assignments[:2])
    with pytest.raises(InvalidConfigError, match="got 'steps'"):
        built(*assignments, "experts.robust.attack.steps=3")
