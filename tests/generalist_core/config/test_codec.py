"""The JSON form is lossless, refuses what it does not know, and paths reach every field."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
from pathlib import Path
from typing import Any, cast

import optuna
import pytest

from generalist_core import config as config_module
from generalist_core.config import (
    FGSM,
    PGD,
    SGD,
    TRADES,
    AdamW,
    Constant,
    CustomAttack,
    CustomLoss,
    DataConfig,
    EarlierSettings,
    InvalidConfigError,
    ModelConfig,
    TrainConfig,
)
from generalist_core.config.codec import (
    from_dict,
    from_json,
    load_config,
    replace_all,
    replace_at,
    to_dict,
    to_json,
    value_at,
)
from generalist_core.config.norms import with_norms
from generalist_core.config.presets import official, paper, short
from spaces import SPACES
from tests.helpers.problems import RUNS, ratio, three_experts, two_experts, with_expert

CONFIGS: dict[str, TrainConfig] = {
    **RUNS,
    "preset official": official(),
    "preset paper": paper(),
    "preset short": short(),
    "several norms": with_norms(short(), {"linf": 0.1, "l2": 0.5}),
    "custom functions": with_expert(
        two_experts(),
        "robust",
        attack=CustomAttack(function="mine.py:attack", epsilon=0.1, forward_images=4),
        loss=CustomLoss(function="mine.py:loss", n_forwards=2),
    ),
    "settings that changed": with_expert(
        two_experts(),
        "robust",
        earlier=(EarlierSettings(until=1, attack=PGD(epsilon=0.2), loss=TRADES(beta=0.5)),),
    ),
    "constant per step": with_expert(two_experts(), "robust", schedule=Constant(per_step=True)),
    "normalised": two_experts(
        model=ModelConfig(mean=(0.5, 0.1, 1 / 3), std=(1.0, 2.0, 0.7)),
        data=DataConfig(name="digits", n_train=100, image_size=32, download=True),
    ),
    "whole numbers": two_experts(mixing=ratio(0, 1)),
    "tuples for two": two_experts(mixing=ratio((1, 0), (0.4, 0.6))),
    "no numbers lost": two_experts(mixing=ratio(0.1 + 0.2, decay=1 - 1e-16)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_json_is_lossless(config: TrainConfig) -> None:
    again = from_json(to_json(config), TrainConfig)
    assert again == config
    assert to_json(again) == to_json(config)


def classes_in(value: Any) -> set[str]:
    if dataclasses.is_dataclass(value):
        inside = (classes_in(getattr(value, field.name)) for field in dataclasses.fields(value))
        return {type(value).__name__}.union(*inside)
    return set().union(*map(classes_in, value)) if isinstance(value, tuple) else set()


def test_the_table_above_uses_every_class() -> None:
    every = {name for name, _ in inspect.getmembers(config_module, dataclasses.is_dataclass)}
    assert set().union(*map(classes_in, CONFIGS.values())) == every


def test_the_form_is_plain() -> None:
    robust = to_dict(two_experts())["experts"][1]
    assert robust["attack"] == {
        "type": "PGD",
        "epsilon": 0.1,
        "norm": "linf",
        "steps": 2,
        "relative_step_size": 0.25,
        "random_start": True,
        "momentum": 0.0,
        "loss": "cross-entropy",
    }
    assert "type" not in robust
    assert list(robust) == [
        "name",
        "attack",
        "loss",
        "optimizer",
        "schedule",
        "lr_warmup_epochs",
        "max_gradient_norm",
        "label_smoothing",
        "batch_augmentation",
        "rests",
        "earlier",
    ]


def test_fields_left_out_take_their_defaults() -> None:
    text = """{"experts": [{"name": "a"}, {"name": "b", "optimizer": "AdamW",
        "attack": {"type": "PGD", "epsilon": 1, "norm": "l2"}}],
        "evaluation": {"attacks": [{"name": "r", "attack": {"type": "FGSM", "epsilon": 0.1}}]}}"""
    config = from_json(text, TrainConfig)
    assert config.experts[0].optimizer == SGD()
    assert config.experts[1].optimizer == AdamW()
    assert config.experts[1].attack == PGD(epsilon=1.0, norm="l2")
    assert config.evaluation.attacks[0].attack == FGSM(epsilon=0.1)
    assert config.epochs == 120


def test_a_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(to_json(three_experts()), encoding="utf-8")
    assert load_config(path) == load_config(str(path)) == three_experts()
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert load_config(path) == three_experts()


def changed(place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The JSON object of a configuration with `value` at `place`."""
    whole = to_dict(two_experts())
    here: Any = whole
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    return whole


ATTACK = ("experts", 1, "attack")
WRONG: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("epoch",), 3, "`TrainConfig` must have only known fields, but got epoch"),
    (("data", "size"), 3, "`TrainConfig.data` must have only known fields, but got size"),
    (
        (*ATTACK, "step"),
        3,
        "`TrainConfig.experts.1.attack` must have only known fields, but got step",
    ),
    (
        (*ATTACK, "type"),
        "PDG",
        "TrainConfig.experts.1.attack.type` must be one of FGSM, NFGSM, PGD, MultiTargeted,",
    ),
    (
        (*ATTACK, "type"),
        ["PGD"],
        "TrainConfig.experts.1.attack.type` must be one of FGSM, NFGSM, PGD, MultiTargeted,",
    ),
    (ATTACK, {"type": "PGD"}, "TrainConfig.experts.1.attack` must be complete, but lacks epsilon"),
    (ATTACK, {"epsilon": 0.1}, "TrainConfig.experts.1.attack.type` must be one of"),
    (ATTACK, 3, "TrainConfig.experts.1.attack.type` must be one of"),
    ((*ATTACK, "steps"), 2.5, "TrainConfig.experts.1.attack.steps` must be of type int"),
    ((*ATTACK, "steps"), True, "TrainConfig.experts.1.attack.steps` must be of type int"),
    ((*ATTACK, "steps"), None, "TrainConfig.experts.1.attack.steps` must be of type int"),
    ((*ATTACK, "epsilon"), "0.1", "TrainConfig.experts.1.attack.epsilon` must be of type float"),
    ((*ATTACK, "epsilon"), True, "TrainConfig.experts.1.attack.epsilon` must be of type float"),
    (
        (*ATTACK, "random_start"),
        1,
        "TrainConfig.experts.1.attack.random_start` must be of type bool",
    ),
    ((*ATTACK, "norm"), "l3", "TrainConfig.experts.1.attack.norm` must be one of linf, l2, l1"),
    (("experts", 0), "natural", "TrainConfig.experts.0` must be an object"),
    (("experts",), "natural", "TrainConfig.experts` must be a list"),
    (("data",), None, "TrainConfig.data` must be an object"),
    (("data", "n_train"), 0.5, "TrainConfig.data.n_train` must be of type int"),
    (
        ("mixing", "ratio", "values"),
        [0.5, "x"],
        "TrainConfig.mixing.ratio.values.1` must be of type",
    ),
    (
        ("mixing", "ratio", "values"),
        [[0.5, "x"], 1],
        "TrainConfig.mixing.ratio.values.0.1` must be of",
    ),
    (("data", "type"), "ModelConfig", "TrainConfig.data"),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_what_does_not_fit_is_named_by_its_path(
    place: tuple[str | int, ...], value: Any, message: str
) -> None:
    with pytest.raises(InvalidConfigError) as error:
        from_dict(changed(place, value), TrainConfig)
    assert message in str(error.value)


def test_missing_fields_are_named() -> None:
    with pytest.raises(
        InvalidConfigError, match=r"`TrainConfig` must be complete.*evaluation, experts"
    ):
        from_json("{}", TrainConfig)


@pytest.mark.parametrize("text", ["", "{", "epochs: 3", "[1, 2"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfigError, match="must be JSON"):
        from_json(text, TrainConfig)


def test_a_law_broken_in_json_is_the_error_of_the_configuration() -> None:
    with pytest.raises(InvalidConfigError, match=r"epsilon <= 1.* for linf.*8/255"):
        from_dict(changed((*ATTACK, "epsilon"), 8), TrainConfig)


PATHS: list[tuple[str, Any, Any]] = [
    ("epochs", 5, 7),
    ("sync.every_epochs", 2, 3),
    ("data.n_train", None, 10),
    ("experts.robust.optimizer.lr", 0.05, 0.2),
    ("experts.robust.optimizer.SGD.lr", 0.05, 0.2),
    ("experts.1.optimizer.lr", 0.05, 0.2),
    ("experts.robust.attack.PGD.steps", 2, 9),
    ("experts.natural.attack", None, None),
    ("mixing.ratio.values.0", 0.3, 0.6),
    ("mixing.ratio.RatioSchedule.values.1", 0.3, 0.6),
    ("evaluation.attacks.robust.attack.epsilon", 0.1, 0.2),
    ("evaluation.release_ratios.1", 0.5, 0.4),
]


@pytest.mark.parametrize(("path", "before", "after"), PATHS)
def test_paths_reach_values_and_nothing_else(path: str, before: Any, after: Any) -> None:
    config = two_experts()
    replaced = replace_at(config, path, after)
    assert value_at(config, path) == before
    assert value_at(replaced, path) == after
    assert replace_at(replaced, path, before) == config == two_experts()


def test_class_steps_say_what_a_path_without_them_says() -> None:
    by_class = replace_at(two_experts(), "experts.robust.optimizer.SGD.lr", 0.2)
    assert by_class == replace_at(two_experts(), "experts.robust.optimizer.lr", 0.2)


def test_where_a_dataclass_is_its_class_is_the_value() -> None:
    config = replace_at(two_experts(), "experts.robust.optimizer", "AdamW")
    assert value_at(config, "experts.robust.optimizer") == "AdamW"
    assert config.experts[1].optimizer == AdamW()
    config = replace_at(config, "experts.robust.attack", {"type": "FGSM", "epsilon": 1})
    assert config.experts[1].attack == FGSM(epsilon=1.0)


def test_a_step_that_is_no_field_gets_the_nearest_field() -> None:
    with pytest.raises(InvalidConfigError, match=r"'optimiser' in .*Did you mean optimizer\?$"):
        replace_at(two_experts(), "experts.robust.optimiser.lr", 0.2)


def test_a_property_is_read_and_not_replaced() -> None:
    assert value_at(two_experts(), "cotraining_epochs") == 3
    with pytest.raises(InvalidConfigError, match="'cotraining_epochs' in"):
        replace_at(two_experts(), "cotraining_epochs", 2)


def test_of_several_assignments_the_last_wins_and_each_part_is_built_once() -> None:
    config = replace_all(
        two_experts(),
        [
            ("experts.robust.optimizer.lr", 0.3),
            ("experts.robust.optimizer", "AdamW"),
            ("experts.robust.optimizer.AdamW.lr", 0.2),
            ("experts.1.optimizer.lr", 0.1),
            ("epochs", 1),
            ("sync.start_epoch", 0),
        ],
    )
    assert config.experts[1].optimizer == AdamW(lr=0.1)
    assert (config.epochs, config.sync.start_epoch) == (1, 0)
    assert config.experts[0] == two_experts().experts[0]
    assert replace_all(two_experts(), []) == two_experts()


BAD_PATHS: list[tuple[str, str]] = [
    ("epoch", "'epoch' in 'epoch'"),
    ("experts.robust.optimizer.AdamW.lr", "'AdamW' in"),
    ("experts.robust.optimizer.beta1", "'beta1' in"),
    ("experts.other.optimizer.lr", "There is natural, robust."),
    ("experts.2.optimizer.lr", "'2' in"),
    ("experts.-1.optimizer.lr", "'-1' in"),
    ("epochs.first", "'first' in"),
    ("experts.natural.attack.epsilon", "'epsilon' in"),
    ("", "'' in ''"),
]


@pytest.mark.parametrize(("path", "message"), BAD_PATHS)
def test_a_path_that_leads_nowhere_is_refused(path: str, message: str) -> None:
    config = two_experts()
    with pytest.raises(InvalidConfigError) as read:
        value_at(config, path)
    with pytest.raises(InvalidConfigError) as written:
        replace_at(config, path, 1)
    assert message in str(read.value)
    assert message in str(written.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("epochs", 2.5, "TrainConfig.epochs` must be of type int"),
        ("epochs", 1, "sync.start_epoch < epochs"),
        ("experts.robust.optimizer", "Sgd", "TrainConfig.experts.1.optimizer.type` must be one of"),
        ("experts.robust.attack.epsilon", -1, "epsilon >= 0"),
        ("experts.robust.name", "natural", "Experts must have different names"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidConfigError) as error:
        replace_at(two_experts(), path, value)
    assert message in str(error.value)


def replaced_in_json(config: TrainConfig, path: str, value: Any) -> TrainConfig:
    """The whole configuration is encoded, changed and decoded."""
    value_at(config, path)
    whole = to_dict(config)
    here: Any = whole
    *parents, last = path.split(".")
    for step in parents:
        if isinstance(here, list):
            here = here[index_of(here, step)]
        elif step in here:
            here = here[step]
    here[index_of(here, last) if isinstance(here, list) else last] = value
    return from_dict(whole, TrainConfig)


def index_of(items: list[Any], step: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    return names.index(step) if step in names else int(step)


def outcome(replace: Any, config: TrainConfig, path: str, value: Any) -> TrainConfig | str:
    """The new configuration, or the message about a value that does not fit."""
    try:
        return cast(TrainConfig, replace(config, path, value))
    except InvalidConfigError as error:
        return str(error)


@pytest.mark.parametrize("space", SPACES)
def test_suggestions_replace_what_they_would_replace_in_json(space: str) -> None:
    """Values of one random suggestion in the configuration of another."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trials = [study.ask() for _ in range(12)]
    configs = [SPACES[space](trial, short()) for trial in trials]
    n_replaced = n_refused = 0
    for config, other in itertools.product(configs[:4], trials[4:]):
        for path, value in other.params.items():
            if path == "cotraining_epochs":  # a property
                continue
            direct = outcome(replace_at, config, path, value)
            assert direct == outcome(replaced_in_json, config, path, value), path
            n_replaced += isinstance(direct, TrainConfig)
            n_refused += isinstance(direct, str)
    assert n_replaced > 90
    assert (n_refused > 0) == (space not in ("smoke", "mixing"))


def leaves(value: Any, path: str = "") -> list[str]:
    """The paths of all values in a JSON object, except the names of classes."""
    if isinstance(value, dict):
        pairs = [(name, inside) for name, inside in value.items() if name != "type"]
    elif isinstance(value, list):
        pairs = [(str(i), inside) for i, inside in enumerate(value)]
    else:
        return [path]
    here = [path] if path else []
    return here + [p for name, v in pairs for p in leaves(v, f"{path}.{name}".strip("."))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "mixup, mart", "three experts", "normalised"])
@pytest.mark.parametrize("value", [0.25, 2, -1, True, None, "SGD", "name", [0.5, 0.5], [], {}])
def test_any_value_at_any_path_replaces_what_it_would_replace_in_json(
    name: str, value: Any
) -> None:
    config = from_json(to_json(CONFIGS[name]), TrainConfig)
    for path in leaves(to_dict(config)):
        direct = outcome(replace_at, config, path, value)
        assert direct == outcome(replaced_in_json, config, path, value), path


def test_what_lies_beside_the_path_is_not_made_anew() -> None:
    config = two_experts()
    replaced = replace_at(config, "experts.robust.optimizer.lr", 0.2)
    assert replaced.experts[0] is config.experts[0]
    assert replaced.experts[1].attack is config.experts[1].attack
    assert replaced.data is config.data


def test_the_text_is_json_that_any_reader_reads() -> None:
    assert json.loads(to_json(two_experts())) == to_dict(two_experts())
