"""Law 8: what a space can suggest is valid, and what it searches are fields."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from generalist_core.config import ModelConfig, TrainConfig
from generalist_core.config.codec import replace_at, value_at
from generalist_core.config.presets import official, paper, short
from generalist_core.validation import InvalidConfigError
from spaces import SPACES, Space, Trial, base_suggestion, load_space, paper_suggestion, tune_choice
from spaces.named import FieldReader
from spaces.parameters import parameters_of_space
from spaces.protocol import configuration_of
from tests.helpers.problems import three_experts

optuna.logging.set_verbosity(optuna.logging.WARNING)


BASES: dict[str, Callable[[], TrainConfig]] = {
    "short": short,
    "official": official,
    "paper, wide": lambda: paper(model=ModelConfig(name="wrn-32-10")),
    "three experts": lambda: three_experts(epochs=12),
    **{f"{n} epochs": lambda n=n: short(epochs=n) for n in (2, 3, 5)},  # type: ignore[misc]
}


class EndOfRange:
    """Suggests the lowest or the highest value of every range, and the first or the last choice."""

    def __init__(self, end: int) -> None:
        self.end = end

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return (low, high)[self.end]

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return (low, high)[self.end]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[-self.end]


CASES = {
    f"{name}, {base}": (SPACES[name], BASES[base])
    for name in SPACES
    for base in BASES
    if not (name in ("branches", "lineages") and base == "three experts")
}


@pytest.mark.parametrize(("space", "base"), CASES.values(), ids=CASES)
class TestEverySpace:
    """Every named space over every kind of base."""

    def test_suggestions_are_valid_and_each_name_is_the_field_it_sets(
        self, space: Space, base: Callable[[], TrainConfig]
    ) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(15):
            trial = study.ask()
            config = space(trial, base())
            assert trial.params
            for name, value in trial.params.items():
                if "_shares." not in name:
                    assert value_at(config, name) == value
            again = FieldReader(config)
            assert space(again, base()).mixing.ratio.values == tuple(
                pytest.approx(ratio) for ratio in config.mixing.ratio.values
            )

    @pytest.mark.parametrize("end", [0, 1])
    def test_both_ends_of_all_ranges_are_valid(
        self, space: Space, base: Callable[[], TrainConfig], end: int
    ) -> None:
        assert isinstance(space(EndOfRange(end), base()), TrainConfig)

    def test_the_papers_configuration_can_be_the_first_suggestion(
        self, space: Space, base: Callable[[], TrainConfig]
    ) -> None:
        config = base()
        params, _ = paper_suggestion(space, config)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.enqueue_trial(params)
        trial = study.ask()
        suggested = space(trial, config)
        assert trial.params == params
        published = paper(data=config.data, model=config.model, epochs=config.epochs)
        for name in params:
            if name.startswith(("mixing.ratio", "sync")) and "cotraining_epochs" not in params:
                wanted = config if "_shares." in name else published
                assert value_at(suggested, name) == pytest.approx(value_at(wanted, name))


def test_the_first_suggestion_of_the_full_space_is_the_paper_throughout() -> None:
    base = short(epochs=120)
    params, ratio = paper_suggestion(SPACES["full"], base)
    published = paper(data=base.data, model=base.model, epochs=120)
    assert {name: value_at(published, name) for name in params} == pytest.approx(params)
    assert ratio == 0.4


CUSTOM_SPACE = """
from spaces import tune_float

def mine(trial, base):
    return tune_float(trial, base, "mixing.decay", 0.5, 0.9)
"""


def test_a_custom_space_is_a_function_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "my_space.py").write_text(CUSTOM_SPACE)
    space = load_space(f"{tmp_path}/my_space.py:mine")
    assert space(EndOfRange(0), short()).mixing.decay == 0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ful", "smoke, mixing, experts, full, branches, lineages"),
        ("nowhere.py:f", "nowhere.py"),
        ("spaces:nothing", "no function 'nothing'"),
    ],
)
def test_an_unknown_space_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        load_space(name)


def test_the_base_can_be_the_first_suggestion() -> None:
    base = short(epochs=40)
    params, ratio = base_suggestion(SPACES["full"], base)
    assert params["experts.robust.optimizer.SGD.lr"] == base.experts[1].optimizer.lr
    assert params["mixing.decay"] == base.mixing.decay
    assert ratio == base.mixing.ratio.values[-1]


@pytest.mark.parametrize(
    ("held", "low", "high", "log", "suggested"),
    [(0.1, 0.0, 1.0, False, 0.1), (0.1, 0.2, 0.5, False, 0.2), (0.1, 1e-3, 1e-2, True, 1e-2)],
)
def test_what_a_configuration_holds_is_clamped_to_the_range(
    held: float, low: float, high: float, log: bool, suggested: float
) -> None:
    reader = FieldReader(replace_at(short(), "mixing.decay", held))
    assert reader.suggest_float("mixing.decay", low, high, log=log) == suggested
    assert reader.params == {"mixing.decay": suggested}


def test_what_no_configuration_holds_is_the_middle_of_its_range() -> None:
    reader = FieldReader(short())
    assert reader.suggest_float("mine", 1.0, 4.0) == 2.5
    assert reader.suggest_float("mine", 1.0, 4.0, log=True) == 2.0
    assert reader.suggest_int("mine", 1, 16, log=True) == 4
    assert reader.suggest_categorical("mine", ["a", "b"]) == "a"


def test_a_field_without_a_number_is_the_middle_of_its_range() -> None:
    base = replace_at(short(), "model.width", None)
    assert FieldReader(base).suggest_int("model.width", 8, 16) == 12
    assert FieldReader(base).suggest_float("compile", 0.0, 1.0) == 0.5


@pytest.mark.parametrize(
    ("held", "low", "high", "step", "suggested"),
    [
        (0.7, 0.5, 0.9, 0.1, 0.7),
        (0.74, 0.5, 0.9, 0.1, 0.7),
        (0.76, 0.5, 0.9, 0.1, 0.8),
        (0.3, 0.1, 0.3, 0.1, 0.3),
        (0.95, 0.1, 0.95, 0.3, 0.7),
        (0.0, 0.1, 0.9, 0.4, 0.1),
    ],
)
def test_what_a_configuration_holds_goes_to_the_nearest_step_as_optuna_has_it(
    held: float, low: float, high: float, step: float, suggested: float
) -> None:
    reader = FieldReader(replace_at(short(), "mixing.decay", held))
    assert reader.suggest_float("mixing.decay", low, high, step=step) == suggested
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not divisible")
        study = optuna.create_study()
        study.enqueue_trial({"mixing.decay": suggested})
        assert study.ask().suggest_float("mixing.decay", low, high, step=step) == suggested


def test_whole_numbers_have_steps() -> None:
    reader = FieldReader(replace_at(short(), "batch_size", 70))
    assert reader.suggest_int("batch_size", 32, 128, step=32) == 64
    assert reader.suggest_int("batch_size", 1, 128) == 70
    for steps in ({"step": 0}, {"step": 2, "log": True}):
        with pytest.raises(InvalidConfigError, match="step"):
            reader.suggest_int("batch_size", 32, 128, **steps)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "held", "choices", "suggested"),
    [
        ("batch_size", 64, [32, 64], 64),
        ("batch_size", 99, [32, 64], 32),
        ("data.flip", True, [False, True], True),
        ("data.flip", False, [0, False], False),
        ("data.n_train", None, [500, None], None),
        ("data.n_train", 500, [None, 500], 500),
        ("experts.natural.optimizer.lr", 0.1, [0.1, 0.2], 0.1),
        ("experts.natural.batch_augmentation", None, ["MixUp", None], None),
        ("experts.natural.optimizer", "AdamW", ["SGD", "AdamW"], "AdamW"),
    ],
)
def test_a_choice_keeps_its_type_from_the_base_to_the_configuration(
    path: str, held: Any, choices: list[Any], suggested: Any
) -> None:
    def space(trial: Trial, base: TrainConfig) -> TrainConfig:
        return tune_choice(trial, base, path, choices)

    base = replace_at(short(), path, held)
    params, _ = base_suggestion(space, base)
    assert params == {path: suggested}
    assert type(params[path]) is type(suggested)
    for choice in choices:
        trial = optuna.trial.FixedTrial({path: choice})
        if path != "data.flip" or isinstance(choice, bool):
            assert value_at(configuration_of(space, trial, base), path) == choice
    assert set(parameters_of_space(space, base)[path]) == set(choices)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"low <= high.*'mixing\.decay'"):
        FieldReader(short()).suggest_float("mixing.decay", 0.9, 0.8)


def test_a_space_that_returns_no_configuration_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="must return a TrainConfig, but got None"):
        paper_suggestion(lambda trial, base: None, short())  # type: ignore[arg-type,return-value]


def test_a_space_that_leaves_the_laws_is_refused() -> None:
    def wrong(trial: Any, base: TrainConfig) -> TrainConfig:
        return replace_at(base, "sync.start_epoch", base.epochs)

    with pytest.raises(InvalidConfigError, match=r"sync\.start_epoch < epochs"):
        paper_suggestion(wrong, short())
