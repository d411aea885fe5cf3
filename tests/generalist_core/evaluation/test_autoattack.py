"""AutoAttack's components: as the library runs them, without its traps."""

from __future__ import annotations

import copy
import sys

import pyautoattack
import pytest
import torch
from torch import nn

from generalist_core.attacks.counting import CountingModel
from generalist_core.config import Norm
from generalist_core.config.suite import AUTOATTACK, LIBRARY_ATTACKS
from generalist_core.data.splits import Split
from generalist_core.evaluation import autoattack
from generalist_core.evaluation.autoattack import (
    LibraryAttack,
    library_attack,
    library_checks,
    library_cost,
    unavailable,
)
from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.laws import untouched
from generalist_core.validation import InvalidConfigError
from tests.helpers.planted import (
    SHAPE,
    Dynamic,
    Linear,
    Quantised,
    Randomised,
    Softmax,
    Unbreakable,
    digits,
    interior_images,
    natural_net,
)

NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}
EPSILONS: dict[Norm, float] = {"linf": 0.1, "l2": 0.5, "l1": 2.0}
CPU = torch.device("cpu")


def attack_of(name: str, norm: Norm = "linf", **changes: object) -> LibraryAttack:
    settings = {"epsilon": EPSILONS[norm], "n_classes": 10, "n_iterations": 5, "n_queries": 30}
    return LibraryAttack(name=name, norm=norm, **{**settings, **changes})


def correct_digits(n: int = 128) -> Split:
    split = digits(n)
    with torch.no_grad():
        correct = natural_net()(split.images).argmax(1) == split.labels
    return split.take(correct.nonzero()[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", LIBRARY_ATTACKS)
def test_images_break_the_model_inside_the_ball(name: str, norm: Norm) -> None:
    split = correct_digits(64)
    crafted = library_attack(attack_of(name, norm), natural_net(), split.images, split.labels)
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    lengths = (crafted.images - split.images).flatten(1).norm(p=order, dim=1)
    assert lengths.max() <= EPSILONS[norm] * (1 + 1e-5)
    assert 0 <= crafted.images.min() <= crafted.images.max() <= 1
    with torch.no_grad():
        broken = natural_net()(crafted.images).argmax(1) != split.labels
    assert torch.equal(broken, crafted.claimed)
    assert broken.any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", AUTOATTACK)
def test_settings_are_those_of_the_standard_version(name: str, norm: Norm) -> None:
    net = frozen(natural_net(), CPU)
    whole = pyautoattack.AutoAttack(net, norm=NORMS[norm], eps=0.1, seed=7, device=CPU)
    theirs = {
        "apgd-ce": whole.apgd,
        "apgd-t": whole.apgd_targeted,
        "fab-t": whole.fab,
        "square": whole.square,
    }[name]
    if name == "fab-t":
        theirs.targeted = True  # which AutoAttack sets when its turn comes
    standard = LibraryAttack(name=name, norm=norm, epsilon=0.1, n_classes=10, seed=7)
    ours = autoattack._component(standard, net, CPU, autoattack._Warnings())
    assert type(ours) is type(theirs)
    differing = {k for k in vars(ours) if vars(ours)[k] != vars(theirs)[k]}
    assert differing <= {"logger"}


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_each_image_agrees_with_the_library_called_directly(norm: Norm) -> None:
    split, net = digits(60), frozen(natural_net(), CPU)
    correct = correct_digits(60)
    for name in ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"):
        n_iterations = 10 if name == "fab-t" else 100
        with torch.random.fork_rng([]):
            whole = pyautoattack.AutoAttack(net, norm=NORMS[norm], eps=EPSILONS[norm], seed=3)
            whole.fab.n_iter, whole.square.n_queries = 10, 200
            whole.attacks_to_run = [name]
            theirs, _ = whole.run_standard_evaluation(split.images, split.labels, batch_size=1000)
        attack = attack_of(name, norm, seed=3, n_iterations=n_iterations, n_queries=200)
        ours = library_attack(attack, net, correct.images, correct.labels)
        with torch.no_grad():
            fooled = net(theirs).argmax(1) != split.labels
            natural = net(split.images).argmax(1) == split.labels
        assert torch.equal(fooled[natural], ours.claimed), name
        assert torch.equal(theirs[natural], ours.images), name


@pytest.mark.parametrize("name", LIBRARY_ATTACKS)
def test_model_random_state_and_trace_stay(name: str) -> None:
    split, net = correct_digits(16), copy.deepcopy(natural_net())
    net.train()

    def trace(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with untouched(net):
            library_attack(attack_of(name), net, split.images, split.labels)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


def test_the_librarys_checks_warn_without_ending_the_trace() -> None:
    split = digits(16)

    def trace(*_: object) -> None:
        return None

    def warnings_for(model: nn.Module) -> str:
        return " ".join(library_checks(model, split.images, split.labels))

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with untouched(natural_net()):
            assert "randomized" in warnings_for(Randomised())
            assert "probability distribution" in warnings_for(Softmax())
            assert "dynamic" in warnings_for(Dynamic())
            assert warnings_for(natural_net()) == ""
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


def test_the_trace_is_restored_when_the_model_fails() -> None:
    split = digits(4)

    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError

    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError):
        library_checks(Failing().eval(), split.images, split.labels)
    assert sys.gettrace() is before


def test_log_only_warnings_are_returned() -> None:
    split, net = digits(32), Quantised()
    with torch.no_grad():
        labels = net(split.images).argmax(1)
    crafted = library_attack(attack_of("apgd-dlr"), net, split.images, labels)
    assert any("zero gradient" in message for message in crafted.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_classes", [2, 3, 4, 10])
def test_counts_equal_the_stated_cost_on_an_unbreakable_model(norm: Norm, n_classes: int) -> None:
    x = torch.full((n_classes, *SHAPE), 0.5)
    y = torch.arange(n_classes)
    x[:, 0, 0, 0] = y / n_classes
    for name in LIBRARY_ATTACKS:
        attack = attack_of(name, norm, epsilon=0.01, n_classes=n_classes)
        if unavailable(name, norm, n_classes, SHAPE) is not None:
            continue
        model = CountingModel(frozen(Unbreakable(n_classes), CPU))
        crafted = library_attack(attack, model, x, y)
        assert not crafted.claimed.any()
        counted = model.forward_images / n_classes, model.gradient_images / n_classes
        assert counted == library_cost(attack), name


@pytest.mark.parametrize(("n_classes", "left_out"), [(2, {"apgd-dlr", "apgd-t"}), (3, {"apgd-t"})])
def test_few_classes_leave_attacks_out_with_a_reason(n_classes: int, left_out: set[str]) -> None:
    net, x = Linear(n_classes), interior_images(8)
    y = net(x).argmax(1)
    for name in LIBRARY_ATTACKS:
        attack = attack_of(name, epsilon=0.02, n_classes=n_classes)
        if name in left_out:
            with pytest.raises(InvalidConfigError, match=f"there are {n_classes} classes"):
                library_attack(attack, net, x, y)
        else:
            assert library_attack(attack, net, x, y).claimed.any()


def test_square_needs_room_for_its_tiles() -> None:
    assert unavailable("square", "l2", 10, (1, 4, 8)) is not None
    assert unavailable("square", "linf", 10, (1, 4, 8)) is None


def test_radius_zero_returns_the_images() -> None:
    split = digits(4)
    for name in LIBRARY_ATTACKS:
        attack = attack_of(name, epsilon=0.0)
        crafted = library_attack(attack, natural_net(), split.images, split.labels)
        assert torch.equal(crafted.images, split.images)
