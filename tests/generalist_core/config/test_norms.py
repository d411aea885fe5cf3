"""One robust expert per norm: what each takes over, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generalist_core.config import (
    FGSM,
    NFGSM,
    DataConfig,
    ExpertConfig,
    InvalidConfigError,
    MultiTargeted,
    NamedAttack,
    SeveralAttacks,
    as_weights,
)
from generalist_core.config.norms import (
    corners_and_centre,
    usual_radius,
    with_combined_norms,
    with_norms,
)
from generalist_core.config.presets import official, paper, short

RADII = {"linf": 0.1, "l2": 0.7, "l1": 2.0}


@pytest.mark.parametrize("preset", [short, paper, official])
@pytest.mark.parametrize("norms", [("l2",), ("linf", "l2"), ("l1", "linf", "l2")])
def test_each_norm_has_an_expert_and_an_objective(preset, norms) -> None:  # type: ignore[no-untyped-def]
    base = preset()
    radii = {norm: RADII[norm] for norm in norms}
    config = with_norms(base, radii)
    assert [expert.name for expert in config.experts] == ["natural", *norms]
    assert config.evaluation.objective_names == ("natural", *norms)
    natural, *robust = config.experts
    assert natural == base.experts[0]
    for expert, named in zip(robust, config.evaluation.attacks, strict=True):
        ball = {"norm": expert.name, "epsilon": radii[expert.name]}
        assert expert.attack == replace(base.experts[1].attack, **ball)
        origin = base.evaluation.attacks[0].attack
        alone, several = replace(origin, **ball), MultiTargeted(**ball, steps=origin.steps)
        assert named.attack == (alone if len(norms) == 1 else several)
        assert replace(expert, name="robust", attack=base.experts[1].attack) == base.experts[1]
    for epoch in range(config.epochs):
        weight = base.weights_at(epoch)[1]
        expected = (1 - weight, *(weight / len(norms),) * len(norms))
        assert config.weights_at(epoch) == pytest.approx(expected)


@pytest.mark.parametrize("n_experts", [2, 3, 4])
def test_each_expert_alone_and_equal_weights_are_released(n_experts: int) -> None:
    ratios = [as_weights(ratio, n_experts) for ratio in corners_and_centre(n_experts)]
    assert len(set(ratios)) == n_experts + 1
    assert sum(max(weights) == 1 for weights in ratios) == n_experts
    assert any(
        weights == pytest.approx((1 / n_experts,) * n_experts, abs=2e-6) for weights in ratios
    )


def test_one_expert_is_trained_on_all_norms_combined() -> None:
    base, radii = short(), {"linf": 0.1, "l2": 0.7}
    config = with_combined_norms(base, radii, "random")
    apart = with_norms(base, radii)
    _, robust = base.experts
    attack = config.experts[1].attack
    assert attack == SeveralAttacks(
        parts=tuple(replace(robust.attack, norm=norm, epsilon=radii[norm]) for norm in radii),
        combine="random",
    )
    assert config.experts == (base.experts[0], replace(robust, attack=attack))
    assert config.mixing == base.mixing
    assert config.evaluation == replace(base.evaluation, attacks=apart.evaluation.attacks)
    with pytest.raises(InvalidConfigError, match="must be two or more to be combined, but got l2"):
        with_combined_norms(base, {"l2": 0.5}, "worst")
    fast = replace(base, experts=(base.experts[0], replace(robust, attack=FGSM(epsilon=0.1))))
    with pytest.raises(InvalidConfigError, match=r"must be PGD to be combined .*FGSM"):
        with_combined_norms(fast, radii, "worst")


@pytest.mark.parametrize(
    "attack", [FGSM(epsilon=0.3), MultiTargeted(epsilon=0.3, steps=7, n_targets=2)], ids=str
)
def test_what_is_not_pgd_is_judged_by_as_it_is(attack: FGSM | MultiTargeted) -> None:
    base = short()
    judged = replace(base.evaluation, attacks=(NamedAttack(name="robust", attack=attack),))
    config = with_norms(replace(base, evaluation=judged), {"l2": 0.5, "l1": 2.0})
    assert [named.attack for named in config.evaluation.attacks] == [
        replace(attack, norm="l2", epsilon=0.5),
        replace(attack, norm="l1", epsilon=2.0),
    ]


def test_what_has_no_pair_of_experts_or_no_other_norm_is_refused() -> None:
    base = short()
    three = with_norms(base, {"linf": 0.1, "l2": 0.5})
    with pytest.raises(InvalidConfigError, match=r"natural expert and then .* natural, linf, l2"):
        with_norms(three, RADII)
    fast = ExpertConfig(name="robust", attack=NFGSM(epsilon=0.1))
    with pytest.raises(InvalidConfigError, match=r"must be PGD, FGSM or .*got NFGSM"):
        with_norms(replace(base, experts=(base.experts[0], fast)), RADII)
    with pytest.raises(InvalidConfigError, match="one of linf, l2, l1, but got 'l3'"):
        with_norms(base, {"l3": 0.1})  # type: ignore[dict-item]


def test_lengths_in_l2_and_l1_are_usual_at_the_usual_size_alone() -> None:
    assert usual_radius(DataConfig(name="cifar10"), "l2") == 0.5
    assert usual_radius(DataConfig(name="mnist", image_size=14), "linf") == 0.3
    for data in (DataConfig(name="mnist", image_size=14), DataConfig(name="fashion-mnist")):
        with pytest.raises(InvalidConfigError, match=r"radius in l2 must be given .* l2=0\.5"):
            usual_radius(data, "l2")
