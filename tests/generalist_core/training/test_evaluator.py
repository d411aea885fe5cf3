"""Verdicts on a linear model, where robustness has a closed form."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from generalist_core.attacks.counting import Counted
from generalist_core.attacks.gradient import perturb
from generalist_core.config import (
    FGSM,
    PGD,
    Attack,
    DataConfig,
    EvaluationConfig,
    MultiTargeted,
    NamedAttack,
)
from generalist_core.config.presets import short
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Split
from generalist_core.randomness import GeneratorNoise, generator
from generalist_core.training.averaging import weights_of
from generalist_core.training.cost import evaluation_cost
from generalist_core.training.evaluator import (
    Crafting,
    Evaluator,
    accuracies,
    correct,
    crafts_in,
    evaluate,
)
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.validation import EvaluationError
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


@pytest.mark.parametrize("kind", [PGD, MultiTargeted])
@pytest.mark.parametrize("norm", RADII)
def test_a_linear_model_is_robust_where_its_margin_exceeds_the_dual_norm(
    norm: str, kind: type[PGD | MultiTargeted]
) -> None:
    attack = kind(epsilon=RADIUS[norm], norm=norm, steps=100)
    found = verdicts(NamedAttack(name="robust", attack=attack))
    margin = MODEL.margin(split().images, split().labels)
    gain = RADIUS[norm] * lengths(MODEL.ascent(split().labels), DUAL[norm])
    assert torch.equal(found["natural"], margin < 0)
    assert torch.equal(found["robust"], margin + gain < 0)
    assert 0 < found["robust"].sum() < found["natural"].sum() == 50


def test_verdicts_do_not_depend_on_the_batch_size() -> None:
    fgsm = Crafting(attack=FGSM(epsilon=0.02), noise=noise(), logits_of=Counted(MODEL))
    for crafting in (None, fgsm):
        answers = [
            correct(MODEL, split(), size, torch.float64, crafting=crafting) for size in (7, 60, 500)
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
    judged = evaluator.judge(clones(weights_of(model)), n_images=n_images)
    assert judged.accuracies == whole
    assert judged.forward_images == n * evaluation_cost(config)


def test_an_attack_that_spares_images_is_charged_what_it_did() -> None:
    attack = MultiTargeted(epsilon=RADIUS["l2"], norm="l2", steps=4)
    config = EvaluationConfig(attacks=(NamedAttack(name="robust", attack=attack),), batch_size=60)
    model, images = copy.deepcopy(MODEL), split()
    judged = Evaluator(model, images, config, seed=0, dtype=torch.float64).judge(weights_of(model))
    counted, cpu = Counted(MODEL), torch.device("cpu")
    noise = GeneratorNoise(generator(cpu, 0, "evaluation", "robust"))
    perturb(attack, counted, images.images, images.labels, noise)
    spent = counted.forward_images + counted.gradient_images
    assert judged.forward_images == 2 * 60 + spent < 60 * (2 + 1 + 3 * 9)


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
    judged = evaluator.judge(weights).accuracies
    found = verdicts(*attacks)
    assert judged == accuracies(found, names)
    assert judged["union"] == torch.stack([*found.values()]).all(0).double().mean()
    natural = evaluator.judge(weights, attacked=False)
    assert list(natural.accuracies) == ["natural"]
    assert natural.forward_images == 60


class Rooted(LinearNet):
    """Has an infinite gradient at black pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.sqrt())


@pytest.mark.parametrize("kind", [PGD, MultiTargeted])
def test_an_attack_that_makes_nan_is_an_error_and_no_verdict(kind: type[Attack]) -> None:
    """The argmax of NaN is the first class, which would be robust, and the others not."""
    black = replace(split(), images=torch.zeros(60, 1, 4, 4, dtype=torch.float64))
    net, named = Rooted((1, 4, 4)), NamedAttack(name="a", attack=kind(epsilon=0.1, norm="l2"))
    with pytest.raises(
        EvaluationError, match=r"must be numbers, .* NaN for \d+ of 60 .*square root"
    ):
        evaluate(net, black, EvaluationConfig(attacks=(named,)), seed=0, dtype=torch.float64)


class Asked(LinearNet):
    """Notes for each forward whether it takes part in a gradient, and the rounding."""

    seen: ClassVar[set[tuple[bool, bool, bool, str, bool]]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cudnn = torch.backends.cudnn
        matmul, cast = torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")
        self.seen.add((x.requires_grad, cudnn.benchmark, cudnn.allow_tf32, matmul, cast))
        return super().forward(x)


@pytest.mark.parametrize(
    ("precision", "crafted"),
    [
        ("float32", (True, False, False, "highest", False)),
        ("tfloat32", (True, False, True, "high", False)),
        ("bfloat16", (True, False, False, "highest", True)),
    ],
)
def test_only_attacks_are_rounded_and_no_convolution_is_searched_for(
    precision: Any, crafted: tuple[bool, bool, bool, str, bool]
) -> None:
    attacks = (NamedAttack(name="robust", attack=PGD(epsilon=0.02)),)
    config = EvaluationConfig(attacks=attacks, precision=precision)
    Asked.seen.clear()
    images = split()
    single = Split(images=images.images.float(), labels=images.labels)
    net = Asked((1, 4, 4), torch.float32)
    with torch.backends.cudnn.flags(benchmark=True, allow_tf32=True):
        Evaluator(net, single, config, seed=0, dtype=torch.float32).judge(weights_of(net))
    assert Asked.seen == {(False, False, False, "highest", False), crafted}


def test_a_training_in_float64_is_judged_in_it() -> None:
    attacks, cpu = (NamedAttack(name="robust", attack=FGSM(epsilon=0.02)),), torch.device("cpu")
    for precision in ("auto", "float32", "bfloat16"):
        config = EvaluationConfig(attacks=attacks, precision=precision)
        assert crafts_in(config, torch.float64, cpu) == "float64"
        expected = "float32" if precision == "auto" else precision
        assert crafts_in(config, torch.float32, cpu) == expected


@pytest.mark.slow
def test_judging_in_bfloat16_differs_by_less_than_an_image_in_a_hundred() -> None:
    """On trained models of the digits, folded and not; natural accuracy is the same."""
    data = load_dataset(DataConfig(n_validation=700))
    trainer = GeneralistTrainer(
        replace(short(data=DataConfig(n_validation=700), epochs=8), device="cpu"), data
    )
    while not trainer.is_done:
        trainer.train_epoch()
    attacks = (PGD(epsilon=0.2), MultiTargeted(epsilon=0.2))
    for attack, folds, ratio in itertools.product(attacks, (False, True), (0.0, 0.5, 1.0)):
        found = {}
        for precision in ("float32", "bfloat16"):
            config = replace(
                trainer.config.evaluation,
                attacks=(NamedAttack(name="robust", attack=attack),),
                precision=precision,
            )
            judge = Evaluator(
                copy.deepcopy(trainer.experts[0].model),
                data.validation,
                config,
                seed=0,
                dtype=torch.float32,
                fold_batchnorm=folds,
            )
            assert (judge.crafting is not None) == (folds and precision == "bfloat16")
            found[precision] = judge.judge(trainer.mixture(ratio)).accuracies
        full, half = found["float32"], found["bfloat16"]
        assert half["natural"] == full["natural"]
        assert half["robust"] == pytest.approx(full["robust"], abs=0.01)
        assert ratio == 0 or 0.1 < full["robust"] < full["natural"]
