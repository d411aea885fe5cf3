"""The attack suite: verdicts that can be trusted, at no more cost than they need."""

from __future__ import annotations

import dataclasses
import io
from typing import Any, ClassVar

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from generalist_core.attacks.gradient import perturb
from generalist_core.config import PGD, MultiTargeted, Norm
from generalist_core.config.suite import SuiteConfig, SuitePrecision
from generalist_core.data.splits import Split
from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.laws import untouched
from generalist_core.evaluation.suite import SuiteEvaluation, run_suite
from generalist_core.evaluation.suite_result import Progress, SuiteResult
from generalist_core.validation import EvaluationError, InvalidConfigError
from tests.helpers.planted import (
    SHAPE,
    Dropping,
    HiddenFromGradients,
    Linear,
    NoisyByPlace,
    PooledByPlace,
    Quantised,
    Randomised,
    Remembering,
    Scaled,
    Softmax,
    Unbreakable,
    WithoutStatistics,
    digits,
    interior_images,
    natural_net,
    robust_net,
)
from tests.helpers.problems import noise

CPU = torch.device("cpu")
EPSILONS: dict[Norm, float] = {"linf": 0.1, "l2": 0.5, "l1": 2.0}


def suite(*attacks: str, **changes: Any) -> SuiteConfig:
    """A suite that is small enough for a fast test."""
    settings: dict[str, Any] = {
        "norm": "linf",
        "epsilon": 0.05,
        "attacks": attacks or ("fgsm", "pgd-5", "cw-5", "apgd-ce", "square"),
        "batch_size": 40,
        "n_check_images": 0,
        "n_iterations": 5,
        "n_queries": 40,
    }
    return SuiteConfig(**{**settings, **changes})


def verdicts_of(result: SuiteResult) -> Tensor:
    return torch.stack(list(result.verdicts.values()))


def indicators_of(result: SuiteResult) -> set[str]:
    return {indicator.name for indicator in result.indicators}


def test_cheap_attacks_run_first_and_autoattack_is_its_components() -> None:
    config = suite("autoattack", "apgd-ce", "pgd-100x5", "cw-50", "fgsm", "mim-20", n_queries=5000)
    config = dataclasses.replace(config, n_iterations=100)
    evaluation = SuiteEvaluation(natural_net(), digits(8), config)
    assert evaluation.names == [
        *("natural", "fgsm", "mim-20", "cw-50", "apgd-ce", "pgd-100x5", "apgd-t", "fab-t", "square")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", torch.inf)])
def test_linear_models_match_the_closed_form(norm: Norm, dual: float) -> None:
    model, x = Linear(4), interior_images()
    y = model(x).argmax(1)
    radii = model.radii(x, y, dual)
    epsilon = float(radii.median())
    config = suite(
        "pgd-40", "cw-40", "apgd-ce", "fab-t", norm=norm, epsilon=epsilon, n_iterations=20
    )
    result = run_suite(model, Split(images=x, labels=y), config)
    near = (radii - epsilon).abs() < 1e-3 * epsilon
    assert near.sum() <= 3
    assert torch.equal(result.worst_case[~near], (radii > epsilon)[~near])


def test_a_naturally_trained_net_falls() -> None:
    result = run_suite(natural_net(), digits(), suite("fgsm", "pgd-20", epsilon=0.2))
    assert result.accuracies["natural"] > 0.95
    assert result.worst_case_accuracy < 0.02


@pytest.mark.slow
def test_pgd_in_l1_comes_near_apgd_on_a_net_that_is_robust_in_another_norm() -> None:
    """Both with five starts, APGD with 50 steps; in the ball alone, PGD leaves 8 points more."""
    net = robust_net(PGD(epsilon=0.1, steps=3, relative_step_size=0.7))
    left = {
        name: [
            run_suite(net, digits(300), suite(name, norm="l1", epsilon=radius, n_iterations=50))
            for radius in (1.0, 1.5, 2.0)
        ]
        for name in ("pgd-20x5", "apgd-ce")
    }
    pgd, apgd = ([each.worst_case_accuracy for each in results] for results in left.values())
    assert 0.05 < apgd[2] < apgd[0] < 0.8
    assert max(p - a for p, a in zip(pgd, apgd, strict=True)) < 0.05
    assert sum(pgd) / 3 <= sum(apgd) / 3 + 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.2), ("l2", 0.75)])
def test_what_judges_several_norms_comes_near_apgd_where_pgd_does_not(
    norm: Norm, epsilon: float
) -> None:
    """On a net that is robust in a smaller ball or another norm, with as many steps as PGD."""
    net, images = robust_net(PGD(epsilon=0.1, steps=3, relative_step_size=0.7)), digits(300)
    left = {
        kind: perturb(kind(norm=norm, epsilon=epsilon), net, images.images, images.labels, noise())
        for kind in (PGD, MultiTargeted)
    }
    pgd, targeted = ((net(x).argmax(1) == images.labels).double().mean() for x in left.values())
    apgd = run_suite(net, images, suite("apgd-t", norm=norm, epsilon=epsilon, n_iterations=50))
    assert targeted < apgd.worst_case_accuracy + 0.03
    assert pgd > targeted + 0.06


@pytest.mark.parametrize(("n_classes", "left_out"), [(2, {"apgd-dlr", "apgd-t"}), (3, {"apgd-t"})])
def test_few_classes_run_and_say_what_was_left_out(n_classes: int, left_out: set[str]) -> None:
    net, split = natural_net(n_classes), digits(40, n_classes)
    result = run_suite(net, split, suite("autoattack", "apgd-dlr", "cw-10", epsilon=0.3))
    assert set(result.skipped) == left_out
    assert all(f"{n_classes} classes" in reason for reason in result.skipped.values())
    assert result.worst_case_accuracy < result.accuracies["natural"]


def test_bytes_and_a_prefix_of_the_images_are_judged() -> None:
    split = digits(30)
    as_bytes = Split(images=(split.images * 255).round().to(torch.uint8), labels=split.labels)
    result = run_suite(natural_net(), as_bytes, suite("fgsm", n_images=12))
    assert result.n_images == 12
    assert all(correct.shape == (12,) for correct in result.verdicts.values())


def test_restarts_only_break_more() -> None:
    split = digits(60)
    once, often = (
        run_suite(natural_net(), split, suite(name, epsilon=0.08)) for name in ("pgd-3", "pgd-3x4")
    )
    assert (often.verdicts["pgd-3x4"] <= once.verdicts["pgd-3"]).sum() >= 58
    assert often.accuracies["pgd-3x4"] <= once.accuracies["pgd-3"]


@pytest.mark.slow
def test_early_exit_and_attacking_all_have_the_same_worst_case() -> None:
    split, settings = digits(60), {"n_iterations": 3, "n_queries": 20}
    early, whole = (
        run_suite(
            natural_net(), split, suite("autoattack", "pgd-3", attack_all=attack_all, **settings)
        )
        for attack_all in (False, True)
    )
    assert torch.equal(early.worst_case, whole.worst_case)
    assert 0 < early.worst_case_accuracy < early.accuracies["natural"]
    assert sum(whole.forward_images.values()) > sum(early.forward_images.values())
    natural = whole.verdicts["natural"]
    for name in whole.verdicts:
        if name != "natural":
            assert torch.equal(whole.attacked[name], natural)


def test_what_is_broken_is_spared() -> None:
    result = run_suite(natural_net(), digits(100), suite())
    left = result.verdicts["natural"]
    for name, correct in result.verdicts.items():
        if name == "natural":
            continue
        assert torch.equal(result.attacked[name], left)
        assert not (correct & ~left).any()
        left = correct
    assert torch.equal(left, result.worst_case)


def test_nothing_is_saved_where_nothing_breaks() -> None:
    x, y = torch.full((4, *SHAPE), 0.5), torch.arange(4)
    x[:, 0, 0, 0] = y / 4
    config = suite("autoattack", "pgd-3x2", "mim-4", epsilon=0.01)
    result = run_suite(Unbreakable(4), Split(images=x, labels=y), config)
    assert result.worst_case_accuracy == 1
    assert result.saved_fraction == pytest.approx(0)
    for name, full in result.full_costs.items():
        assert result.forward_images[name] + result.gradient_images[name] == 4 * full


def test_early_exits_save_a_stated_fraction() -> None:
    result = run_suite(natural_net(), digits(60), suite("pgd-5", "autoattack", epsilon=0.2))
    assert result.saved_fraction is not None
    assert result.saved_fraction > 0.9
    assert run_suite(natural_net(), digits(4), suite("fgsm")).saved_fraction is None


def test_progress_tells_the_running_bound() -> None:
    seen: list[Progress] = []
    result = run_suite(natural_net(), digits(100), suite(), on_progress=seen.append)
    bounds = [progress.bound for progress in seen]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == result.worst_case_accuracy
    assert seen[2] == Progress(
        attack="natural", n_done=100, n_total=100, bound=result.accuracies["natural"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("attack_all", [False, True])
def test_stopped_anywhere_it_resumes_to_equal_bits(attack_all: bool) -> None:
    split, net = digits(30), natural_net()
    attacks = ("fgsm", "pgd-3", "apgd-ce", "square")
    config = suite(*attacks, attack_all=attack_all, batch_size=20, n_iterations=3, n_queries=10)
    whole = SuiteEvaluation(net, split, config)
    states = [whole.state_dict(), *(whole.state_dict() for _ in whole)]
    expected = whole.result()
    for state in states:
        stored = io.BytesIO()
        torch.save(state, stored)
        stored.seek(0)
        resumed = SuiteEvaluation(net, split, config)
        resumed.load_state_dict(torch.load(stored, weights_only=True))
        for _ in resumed:
            torch.rand(1)
        assert torch.equal(verdicts_of(resumed.result()), verdicts_of(expected))
        assert resumed.result().forward_images == expected.forward_images


def test_another_evaluation_is_not_resumed() -> None:
    split, config = digits(20), suite("fgsm")
    state = SuiteEvaluation(natural_net(), split, config).state_dict()
    for other in (
        SuiteEvaluation(natural_net(), split, suite("fgsm", seed=1)),
        SuiteEvaluation(natural_net(), digits(19), config),
        SuiteEvaluation(Scaled(), split, config),
    ):
        with pytest.raises(InvalidConfigError, match="must be of this model, data and suite"):
            other.load_state_dict(state)


def test_a_result_needs_the_end() -> None:
    with pytest.raises(EvaluationError, match="Every attack must have run"):
        SuiteEvaluation(natural_net(), digits(8), suite("fgsm")).result()


def test_model_and_random_state_stay() -> None:
    net = frozen(natural_net(), CPU).requires_grad_(True)
    with untouched(net):
        run_suite(net, digits(20), suite("autoattack", n_check_images=8, n_queries=10))


def test_a_float64_model_is_judged_in_float32() -> None:
    double = frozen(natural_net(), CPU).double()
    result = run_suite(double, digits(20), suite("pgd-3"))
    same = run_suite(natural_net(), digits(20), suite("pgd-3"))
    assert torch.equal(verdicts_of(result), verdicts_of(same))


class Recording(Linear):
    """Notes for each forward whether it takes part in a gradient, and the precision."""

    seen: ClassVar[list[tuple[bool, bool, str]]] = []

    def forward(self, x: Tensor) -> Tensor:
        tf32 = torch.backends.cudnn.allow_tf32
        self.seen.append((x.requires_grad, tf32, torch.get_float32_matmul_precision()))
        return super().forward(x)


@pytest.mark.parametrize("precision", ["float32", "tfloat32"])
def test_attacks_may_be_rounded_but_verdicts_and_checks_never(precision: SuitePrecision) -> None:
    crafted = (True, True, "high") if precision == "tfloat32" else (True, False, "highest")
    net, x = Recording(10), interior_images(20)
    images = Split(images=x, labels=net(x).argmax(1))
    Recording.seen.clear()
    evaluation = SuiteEvaluation(net, images, suite("pgd-3", precision=precision))
    assert not any(tf32 for _, tf32, _ in Recording.seen)
    Recording.seen.clear()
    for _ in evaluation:
        pass
    assert set(Recording.seen) == {(False, False, "highest"), crafted}
    assert evaluation.judge.is_stable == (precision == "float32")
    assert evaluation.result().indicators == ()


def test_autoattack_runs_in_tf32_where_its_claims_are_not_exact() -> None:
    config = suite("apgd-ce", "fab-t", n_check_images=8, precision="tfloat32")
    full = dataclasses.replace(config, precision="float32")
    found, expected = (run_suite(natural_net(), digits(20), c) for c in (config, full))
    assert found.worst_case_accuracy == pytest.approx(expected.worst_case_accuracy, abs=0.05)


def test_a_model_in_train_mode_is_refused() -> None:
    net = frozen(natural_net(), CPU)
    net.train()
    with pytest.raises(EvaluationError, match="must be in eval mode"):
        run_suite(net, digits(8), suite("fgsm"))


def test_probabilities_are_refused() -> None:
    with pytest.raises(EvaluationError, match="must give logits"):
        run_suite(Softmax(), digits(8), suite("fgsm"))


def test_a_model_that_changes_while_it_is_judged_is_refused() -> None:
    with pytest.raises(EvaluationError, match="must stay the same"):
        run_suite(Remembering(), digits(8), suite("fgsm"))


@pytest.mark.parametrize(
    ("model", "names"),
    [(Scaled, {"scale-dependent", "zero-gradient"}), (Quantised, {"quantised", "zero-gradient"})],
)
def test_masked_models_have_their_indicators(model: type[nn.Module], names: set[str]) -> None:
    result = run_suite(model(), digits(), suite("fgsm", epsilon=0.1, n_check_images=128))
    assert names <= indicators_of(result)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Randomised, "randomised"),
        (Dropping, "randomised"),
        (NoisyByPlace, "batch-dependent"),
        (PooledByPlace, "batch-dependent"),
        (WithoutStatistics, "batch-dependent"),
    ],
)
@pytest.mark.parametrize("n_check_images", [0, 16])
def test_unstable_models_end_in_their_indicator(
    model: type[nn.Module], name: str, n_check_images: int
) -> None:
    """AutoAttack spares what it finds misclassified, so it takes fewer gradients than it claims."""
    config = suite("autoattack", n_iterations=3, n_queries=5, n_check_images=n_check_images)
    result = run_suite(model(), digits(24), config)
    probed = indicators_of(result) - {"library-warning", "square-stronger", "reduced-budget"}
    assert probed == {name}


def test_a_stable_model_keeps_the_exact_claim() -> None:
    evaluation = SuiteEvaluation(natural_net(), digits(8), suite("apgd-ce"))
    assert evaluation.judge.is_stable
    wrong = (digits(8).labels + 1) % 10
    with pytest.raises(EvaluationError, match="must take at least 40 input gradients, but got 0"):
        evaluation.judge.verdicts("apgd-ce", digits(8).images, wrong, torch.arange(8))


def test_square_alone_breaking_images_is_an_indicator() -> None:
    config = suite("pgd-5", "square", epsilon=0.1, n_queries=100)
    result = run_suite(HiddenFromGradients(), digits(), config)
    assert "square-stronger" in indicators_of(result)


def test_a_healthy_net_has_no_indicator_but_the_reduced_budget() -> None:
    config = suite("fgsm", "apgd-ce", n_check_images=64)
    assert indicators_of(run_suite(natural_net(), digits(), config)) == {"reduced-budget"}
    config = suite("fgsm", "pgd-10", n_check_images=64, attack_all=True)
    assert indicators_of(run_suite(natural_net(), digits(), config)) == set()


@pytest.mark.slow
def test_autoattack_agrees_with_the_library_image_by_image() -> None:
    """As a whole in one norm; test_autoattack.py compares its components in all of them."""
    split, net = digits(100), frozen(natural_net(), CPU)
    with torch.random.fork_rng([]):
        whole = pyautoattack.AutoAttack(net, norm="Linf", eps=EPSILONS["linf"], seed=5)
        whole.square.n_queries = 300
        theirs, _ = whole.run_standard_evaluation(split.images, split.labels, batch_size=100)
    with torch.no_grad():
        robust = net(theirs).argmax(1) == split.labels
    config = SuiteConfig(
        norm="linf",
        epsilon=EPSILONS["linf"],
        attacks=("autoattack",),
        batch_size=100,
        seed=5,
        n_check_images=0,
        n_queries=300,
    )
    ours = run_suite(natural_net(), split, config)
    assert torch.equal(ours.worst_case, robust)
    assert 0 < ours.worst_case_accuracy < 0.9
