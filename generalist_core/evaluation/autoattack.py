"""The components of AutoAttack (Croce & Hein 2020) from pyautoattack, made safe to call.

The library reseeds torch's global generators, ends tracing, indexes out of range with fewer than
ten classes, sends warnings only to a logger and, in FAB, runs `.backward()` through the model. Here
the random state and the trace function are restored, target classes fit the model, an attack that
cannot run says why, warnings are returned, and the model is a frozen copy.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generalist_core.config import Norm
from generalist_core.config.suite import LIBRARY_ATTACKS, apgd_restarts, n_targets
from generalist_core.evaluation.frozen import frozen
from generalist_core.validation import InvalidConfigError, require_one_of

_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True, kw_only=True)
class LibraryAttack:
    """One component with the standard settings of AutoAttack.

    The seed is passed to the library unchanged and again for every batch, as AutoAttack does, so
    that verdicts equal those of the library called directly. `n_iterations` is for APGD and FAB,
    `n_queries` for Square; AutoAttack's own values are 100 and 5,000.
    """

    name: str
    norm: Norm
    epsilon: float
    n_classes: int
    seed: int = 0
    n_iterations: int = 100
    n_queries: int = 5000

    def __post_init__(self) -> None:
        require_one_of("library attack", self.name, LIBRARY_ATTACKS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Crafted:
    """Images (n, c, h, w), whether the attack claims to have broken each, (n,), and its warnings.

    An image that it does not claim to have broken is the natural one.
    """

    images: Tensor
    claimed: Tensor
    warnings: tuple[str, ...]


def unavailable(name: str, norm: Norm, n_classes: int, shape: tuple[int, ...]) -> str | None:
    """Why a component cannot run on images of `shape` (c, h, w), or None if it can."""
    if name == "apgd-dlr" and n_classes < 3:
        return f"the DLR loss compares 3 logits, and there are {n_classes} classes"
    if name == "apgd-t" and n_classes < 4:
        return f"the targeted DLR loss compares 4 logits, and there are {n_classes} classes"
    if name == "square" and norm != "linf" and min(shape[1:]) < 5:
        return f"Square needs {norm} images of at least 5 x 5, and they are {shape[1]} x {shape[2]}"
    return None


def library_attack(attack: LibraryAttack, model: nn.Module, x: Tensor, y: Tensor) -> Crafted:
    """Adversarial images for float32 images `x` in [0, 1] with labels `y`.

    Images that the model misclassifies are returned unchanged; at epsilon 0, all are. A model that
    takes gradients or is in train mode is copied and the copy is frozen; the caller's model, random
    state and trace function stay unchanged.

    Raises:
        InvalidConfigError: pyautoattack is missing, or the attack is `unavailable` here.
    """
    reason = unavailable(attack.name, attack.norm, attack.n_classes, tuple(x.shape[1:]))
    if reason is not None:
        raise InvalidConfigError(f"`{attack.name}` must fit the model, but {reason}.")
    log = _Warnings()
    adversarial = x
    if attack.epsilon > 0:
        with library_state():
            component = _component(attack, _as_frozen(model, x), x.device, log)
            adversarial = component.perturb(x.clone(), y.clone()).detach()
    claimed = (adversarial != x).flatten(1).any(1)
    return Crafted(images=adversarial, claimed=claimed, warnings=log.unique)


def library_checks(model: nn.Module, x: Tensor, y: Tensor) -> tuple[str, ...]:
    """The warnings of AutoAttack's checks: randomised or dynamic model, outputs are not logits."""
    log = _Warnings()
    checks = _library("checks")
    with library_state():
        model = _as_frozen(model, x)
        checks.funcs.update(dict.fromkeys(checks.funcs, 0))  # else one dynamic model affects all
        checks.check_randomized(model, x, y, logger=log)
        checks.check_range_output(model, x, logger=log)
        checks.check_dynamic(model, x, logger=log)
    return log.unique


def library_cost(attack: LibraryAttack) -> tuple[int, int]:
    """(forwards, gradients) that the attack needs for one image that it never breaks."""
    n = attack.n_iterations
    targets = n_targets(attack.name, attack.norm, attack.n_classes)
    n_points = n + 3 if attack.norm == "l1" else n + 1  # l1: three radii, each with a start
    match attack.name:
        case "square":
            return attack.n_queries + 3, 0
        case "fab-t":
            return 1 + targets * (2 * n + 3), targets * n
        case "apgd-t":
            return 1 + targets * (1 + n_points), targets * n_points
    restarts = apgd_restarts(attack.norm)
    return 1 + restarts * n_points, restarts * n_points


@contextlib.contextmanager
def library_state() -> Iterator[None]:
    """Restore the trace function and torch's random states, on all devices, after the block."""
    trace = sys.gettrace()
    kind = torch.accelerator.current_accelerator()
    module = torch.get_device_module(kind) if kind is not None else None
    devices = range(module.device_count()) if module and module.is_initialized() else ()
    try:
        with (
            torch.random.fork_rng(devices, device_type=kind.type if kind else "cpu"),
            torch.no_grad(),
        ):
            yield
    finally:
        sys.settrace(trace)


class _Warnings:
    """A replacement for the library's logger, so that no global logger is touched."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warning(self, message: str) -> None:
        self.messages.append(message)

    @property
    def unique(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.messages))


def _component(
    attack: LibraryAttack, model: nn.Module, device: torch.device, log: _Warnings
) -> Any:
    """The library's object, with the settings of AutoAttack's `standard` version."""
    common = {
        "norm": _NORMS[attack.norm],
        "eps": attack.epsilon,
        "seed": attack.seed,
        "device": device,
    }
    targets = n_targets(attack.name, attack.norm, attack.n_classes)
    if attack.name == "square":
        square = _library("square").SquareAttack
        return square(model, n_queries=attack.n_queries, p_init=0.8, resc_schedule=False, **common)
    common["n_iter"] = attack.n_iterations
    if attack.name == "fab-t":
        fab = _library("fab_pt").FABAttack_PT
        return fab(model, targeted=True, n_target_classes=targets, **common)
    common |= {"use_largereps": attack.norm == "l1", "logger": log}
    apgd = _library("autopgd_base")
    if attack.name == "apgd-t":
        return apgd.APGDAttack_targeted(model, n_target_classes=targets, **common)
    loss = attack.name.removeprefix("apgd-")
    return apgd.APGDAttack(model, loss=loss, n_restarts=apgd_restarts(attack.norm), **common)


def _library(module: str) -> Any:
    """A module of pyautoattack, imported on use: only suites that name its attacks need it."""
    try:
        return importlib.import_module(f"pyautoattack.{module}")
    except ModuleNotFoundError as error:
        raise InvalidConfigError(
            f"`pyautoattack` must be installed, but {error}. Install it with pip install "
            "pyautoattack, or leave its attacks out."
        ) from error


def _as_frozen(model: nn.Module, x: Tensor) -> nn.Module:
    is_frozen = not any(p.requires_grad for p in model.parameters())
    return model if is_frozen and not model.training else frozen(model, x.device)
