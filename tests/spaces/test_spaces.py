"""Law 8: what a space can suggest is valid, and what it searches are fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from generalist_core.config import PGD, ExpertConfig, ModelConfig, NamedAttack, TrainConfig
from generalist_core.config.codec import replace_at, value_at
from generalist_core.config.presets import official, paper, short
from generalist_core.validation import InvalidConfigError
from spaces import SPACES, Space, Trial, load_space, paper_suggestion, tune_float

optuna.logging.set_verbosity(optuna.logging.WARNING)


def three_experts() -> TrainConfig:
    """Linf and L2 experts beside a natural one (Generalist++)."""
    base = short()
    l2 = ExpertConfig(name="l2", attack=PGD(epsilon=1.0, norm="l2"))
    attacks = (*base.evaluation.attacks, NamedAttack(name="l2", attack=PGD(epsilon=1, norm="l2")))
    even = (1 / 3, 1 / 3, 1 / 3)
    ratio = dataclasses.replace(base.mixing.ratio, values=(even, even))
    return dataclasses.replace(
        base,
        experts=(*base.experts, l2),
        mixing=dataclasses.replace(base.mixing, ratio=ratio),
        evaluation=dataclasses.replace(base.evaluation, attacks=attacks, release_ratios=(even,)),
    )


BASES: dict[str, Callable[[], TrainConfig]] = {
    "short": short,
    "official": official,
    "paper, wide": lambda: paper(model=ModelConfig(name="wrn-32-10")),
    "three experts": three_experts,
    **{f"{n} epochs": lambda n=n: short(epochs=n) for n in (2, 3, 5)},  # type: ignore[misc]
}


class EndOfRange:
    """Suggests the lowest or the highest of everything, and the choice at the same end."""

    def __init__(self, end: int) -> None:
        self.end = end

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return (low, high)[self.end]

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return (low, high)[self.end]

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> str:
        return choices[-self.end]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
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
                assert value_at(config, name) == value

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
            if name.startswith(("mixing.ratio", "sync")):
                assert value_at(suggested, name) == pytest.approx(value_at(published, name))


def test_the_first_suggestion_of_the_full_space_is_the_paper_throughout() -> None:
    base = short(epochs=120)
    params, ratio = paper_suggestion(SPACES["full"], base)
    published = paper(data=base.data, model=base.model, epochs=120)
    assert {name: value_at(published, name) for name in params} == pytest.approx(params)
    assert ratio == 0.4


def test_conditional_fields_are_suggested_only_under_their_condition() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        trial = study.ask()
        SPACES["experts"](trial, short())
        kind = trial.params["experts.robust.optimizer"]
        fields = [name for name in trial.params if name.startswith("experts.robust.optimizer.")]
        assert fields
        assert all(name.startswith(f"experts.robust.optimizer.{kind}.") for name in fields)


USERS_SPACE = """
from spaces import tune_float

def mine(trial, base):
    return tune_float(trial, base, "mixing.decay", 0.5, 0.9)
"""


def test_a_users_space_is_a_function_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "my_space.py").write_text(USERS_SPACE)
    space = load_space(f"{tmp_path}/my_space.py:mine")
    assert space(EndOfRange(0), short()).mixing.decay == 0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ful", "smoke, mixing, experts, full"),
        ("nowhere.py:f", "nowhere.py"),
        ("spaces:nothing", "no function 'nothing'"),
    ],
)
def test_an_unkncustom_space_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        load_space(name)


def test_a_space_that_names_no_field_is_refused() -> None:
    def wrong(trial: Trial, base: TrainConfig) -> TrainConfig:
        return tune_float(trial, base, "mixing.gamma", 0, 1)

    with pytest.raises(InvalidConfigError, match=r"'gamma' in 'mixing\.gamma'"):
        paper_suggestion(wrong, short())


def test_a_space_that_leaves_the_laws_is_refused() -> None:
    def wrong(trial: Any, base: TrainConfig) -> TrainConfig:
        return replace_at(base, "sync.start_epoch", base.epochs)

    with pytest.raises(InvalidConfigError, match=r"sync\.start_epoch < epochs"):
        paper_suggestion(wrong, short())
