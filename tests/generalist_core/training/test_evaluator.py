"""Verdicts on a linear model, where robustness has a closed form."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch

from generalist_core.config import FGSM, PGD, Attack, EvaluationConfig, NamedAttack
from generalist_core.data.splits import Split
from generalist_core.training.averaging import weights_of
from generalist_core.training.evaluator import Evaluator, accuracies, correct, evaluate
from tests.helpers.problems import (
    RADII,
    LinearNet,
    clones,
    lengths,
    noise,
    random_images,
    same_bits,
)

MODEL = LinearNet((1, 4, 4))
MODEL.bias.data.fill_(-0.5 * MODEL.weight.sum())
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
RADIUS = {"linf": 0.02, "l2": 0.1, "l1": 0.3}


def split() -> Split:
    """Images away from the box; about a sixth of the labels are wrong."""
    images = random_images(60, 1, 4, 4, low=0.35, high=0.65)
    labels = (MODEL(images).argmax(1) + (torch.arange(60) % 6 == 0)) % 2
    return Split(images=images, labels=labels)


def verdicts(*attacks: NamedAttack) -> dict[str, torch.Tensor]:
    config = EvaluationConfig(attacks=attacks)
    return evaluate(MODEL, split(), config, seed=0, dtype=torch.float64)


@pytest.mark.parametrize("norm", RADII)
def test_a_linear_model_is_robust_where_its_margin_exceeds_the_dual_norm(norm: str) -> None:
    attack = PGD(epsilon=RADIUS[norm], norm=norm, steps=100)
    found = verdicts(NamedAttack(name="robust", attack=attack))
    margin = MODEL.margin(split().images, split().labels)
    gain = RADIUS[norm] * lengths(MODEL.ascent(split().labels), DUAL[norm])
    assert torch.equal(found["natural"], margin < 0)
    assert torch.equal(found["robust"], margin + gain < 0)
    assert 0 < found["robust"].sum() < found["natural"].sum() == 50


def test_verdicts_do_not_depend_on_the_batch_size() -> None:
    for attack in (None, FGSM(epsilon=0.02)):
        answers = [
            correct(MODEL, split(), size, torch.float64, attack=attack, noise=noise())
            for size in (7, 60, 500)
        ]
        assert all(torch.equal(answers[0], answer) for answer in answers)


@pytest.mark.parametrize(("n_images", "n"), [(None, 60), (10, 10), (100, 60)])
def test_the_first_images_are_judged(n_images: int | None, n: int) -> None:
    config = EvaluationConfig(
        attacks=(NamedAttack(name="robust", attack=FGSM(epsilon=0.02)),), n_images=5
    )
    model = copy.deepcopy(MODEL)
    evaluator = Evaluator(model, split(), config, seed=0, dtype=torch.float64)
    whole = {name: v[:n].double().mean() for name, v in verdicts(*config.attacks).items()}
    assert evaluator.judge(clones(weights_of(model)), n_images=n_images) == whole


def images_judged(attack: Attack, name: str, seed: int, others: tuple[NamedAttack, ...]) -> Any:
    """The adversarial images that a model is shown last."""
    seen: list[torch.Tensor] = []

    def watching(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach().clone())
        return MODEL(x)

    config = EvaluationConfig(attacks=(*others, NamedAttack(name=name, attack=attack)))
    evaluate(watching, split(), config, seed=seed, dtype=torch.float64)
    return seen[-1]


def test_an_attacks_noise_depends_on_seed_and_name_alone() -> None:
    attack = PGD(epsilon=0.02, steps=1)
    first = images_judged(attack, "a", 0, ())
    beside = images_judged(attack, "a", 0, (NamedAttack(name="b", attack=attack),))
    assert same_bits(first, beside)
    cases = [first, images_judged(attack, "a", 1, ()), images_judged(attack, "b", 0, ())]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(cases, 2))


def test_the_union_is_counted_image_by_image_and_the_mean_over_attacks() -> None:
    """Each verdict fails on an image of its own, so that the union is below every accuracy."""
    verdicts = {
        "natural": torch.tensor([False, True, True, True, True]),
        "linf": torch.tensor([True, False, True, True, False]),
        "l2": torch.tensor([True, True, False, True, True]),
    }
    expected = {"natural": 0.8, "linf": 0.6, "l2": 0.8, "union": 0.2, "mean": 0.7}
    for names in (("natural", "union"), ("natural", "mean"), tuple(expected)):
        found = accuracies(verdicts, names)
        assert list(found) == list(names)
        assert found == pytest.approx({name: expected[name] for name in names})


def test_judged_are_the_objectives_from_the_verdicts_of_all_attacks() -> None:
    attacks = tuple(
        NamedAttack(name=norm, attack=PGD(epsilon=radius, norm=norm, steps=5))
        for norm, radius in RADIUS.items()
    )
    names = ("natural", "union", "l1", "mean")
    config = EvaluationConfig(attacks=attacks, objectives=names)
    model = copy.deepcopy(MODEL)
    weights = clones(weights_of(model))
    evaluator = Evaluator(model, split(), config, seed=0, dtype=torch.float64)
    judged = evaluator.judge(weights)
    found = verdicts(*attacks)
    assert judged == accuracies(found, names)
    assert judged["union"] == torch.stack([*found.values()]).all(0).double().mean()
    assert list(evaluator.judge(weights, attacked=False)) == ["natural"]
