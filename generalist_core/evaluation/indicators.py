"""Indicators: documented signs that an attack failed, so that robustness may be overstated.

They are probed on a few images with the attacks of `generalist_core.attacks`, and are not errors:
an indicator says what to look at. After Carlini et al. 2019 ("On evaluating adversarial
robustness"), Pintor et al. 2022 ("Indicators of attack failure") and the flags of AutoAttack (Croce
& Hein 2020).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generalist_core.attacks.gradient import (
    Logits,
    cross_entropy_of,
    input_gradient,
    margin,
    perturb,
)
from generalist_core.config import FGSM, Attack, Norm
from generalist_core.config.suite import standard_pgd
from generalist_core.evaluation.laws import require_natural_at_zero
from generalist_core.evaluation.random_search import random_search
from generalist_core.randomness import GeneratorNoise, generator
from generalist_core.validation import require_one_of

INDICATORS = {
    "randomised": "Two forwards of the same images differ: attacks must average over draws.",
    "batch-dependent": "The logits of an image depend on the images beside it: so do verdicts.",
    "discontinuous": "Tiny changes of an image move the logits at random: gradients say nothing.",
    "masked-gradients": "PGD misses much of what a margin loss and a short random search break.",
    "zero-gradient": "Cross-entropy has no gradient at some images: attacks on it do not move.",
    "quantised": "Not even the logits have a gradient: the model is a step function, use Square.",
    "bounded": "Outputs fill [0, 1] or [-1, 1], as after a sigmoid or tanh: gradients are small.",
    "scale-dependent": "The verdicts change with the scale of the logits: it masks gradients.",
    "loss-still-moving": "PGD still gains in its last 10 steps: it needs more steps.",
    "order-violated": "A stronger attack breaks fewer images than a weaker one.",
    "rises-with-epsilon": "Accuracy is higher in a larger ball.",
    "above-chance": "Accuracy is above chance at linf 0.5, where any image can be made grey.",
    "square-stronger": "Square, without gradients, breaks images that no gradient attack breaks.",
    "reduced-budget": "AutoAttack ran with fewer iterations or queries than is standard.",
    "library-warning": "AutoAttack's own checks gave a warning.",
}
"""The meaning of each indicator's name."""

_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])")

STRENGTH = ("natural", "fgsm", "pgd-10", "pgd-20", "pgd-100", "autoattack")
"""Attacks of increasing strength, each of which should break at least as many images."""


@dataclass(frozen=True, kw_only=True)
class Indicator:
    """One indicator: its name in `INDICATORS`, what was seen, and its size, mostly a fraction."""

    name: str
    message: str
    value: float

    def __post_init__(self) -> None:
        require_one_of("indicator", self.name, tuple(INDICATORS))


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A frozen model and the few images, (n, c, h, w) with labels (n,), that it is probed on."""

    logits_of: Logits
    x: Tensor
    y: Tensor
    norm: Norm
    epsilon: float
    seed: int
    n_steps: int = 50

    def correct(self, x: Tensor) -> Tensor:
        """Verdicts, (n,), on images `x` instead of the probe's."""
        with torch.no_grad():
            return self.logits_of(x).argmax(1) == self.y

    def under(self, attack: Attack, *, scale: float = 1.0) -> Tensor:
        """Verdicts, (n,), under an attack that sees the logits multiplied by `scale`."""
        rng = generator(self.x.device, self.seed, "probe")
        images = perturb(
            attack, lambda x: scale * self.logits_of(x), self.x, self.y, GeneratorNoise(rng)
        )
        return self.correct(images)


def probed_indicators(probe: Probe) -> tuple[Indicator, ...]:
    """All indicators of a model that is not `unstable`, at about 380 forwards per image.

    Raises:
        EvaluationError: an attack of radius 0 changes a verdict.
    """
    natural = probe.correct(probe.x)
    require_natural_at_zero(natural, probe.under(standard_pgd(probe.norm, 0.0, 2)))
    ten, twenty = (
        probe.under(standard_pgd(probe.norm, probe.epsilon, steps)) for steps in (10, 20)
    )
    fgsm = probe.under(FGSM(norm=probe.norm, epsilon=probe.epsilon))
    indicators = (
        *weaknesses(probe, ten, twenty),
        *order_violations({"natural": natural, "fgsm": fgsm, "pgd-10": ten, "pgd-20": twenty}),
        rises_with_epsilon(probe, ten),
        above_chance(probe),
        bounded(probe),
    )
    return tuple(indicator for indicator in indicators if indicator is not None)


def weaknesses(probe: Probe, ten: Tensor, twenty: Tensor) -> tuple[Indicator, ...]:
    """Why PGD, whose verdicts (n,) after 10 and 20 steps are given, may be weak.

    The general signs are judged only where none of the special ones names the reason.
    """
    special = (zero_gradient(probe), quantised(probe), scale_dependent(probe, ten))
    found = tuple(indicator for indicator in special if indicator is not None)
    if found:
        return found
    general = discontinuous(probe) or masked_gradients(probe, twenty) or loss_still_moving(probe)
    return (general,) if general is not None else ()


def zero_gradient(probe: Probe) -> Indicator | None:
    """The cross-entropy has no gradient at all at some images."""
    gradient = input_gradient(probe.logits_of, probe.x, cross_entropy_of(probe.y))
    fraction = _fraction_of_zeros(gradient)
    message = f"the cross-entropy has zero gradient at {fraction:.1%} of the images"
    return indicator_above(0, "zero-gradient", message, fraction)


def quantised(probe: Probe) -> Indicator | None:
    """The margin, which cannot saturate, has no gradient at some images either."""
    gradient = input_gradient(
        probe.logits_of, probe.x, lambda logits: margin(logits, probe.y).sum()
    )
    fraction = _fraction_of_zeros(gradient)
    message = f"even the logits have zero gradient at {fraction:.1%} of the images"
    return indicator_above(0, "quantised", message, fraction)


def bounded(probe: Probe) -> Indicator | None:
    """All outputs lie in [0, 1] or [-1, 1], and come within 1 % of both ends.

    Logits have no bounds, and fill such an interval only by chance. The value is the largest one.
    """
    with torch.no_grad():
        outputs = probe.logits_of(probe.x)
    low, high = float(outputs.min()), float(outputs.max())
    fills = any(
        start <= low <= start + 0.01 * (1 - start) and 1 - 0.01 * (1 - start) <= high <= 1
        for start in (0, -1)
    )
    message = f"all outputs lie in [{low:.3g}, {high:.3g}], as after a sigmoid or tanh"
    return indicator_above(0, "bounded", message, high if fills else 0.0)


def discontinuous(probe: Probe) -> Indicator | None:
    """A change of 0.001 per pixel moves most images' logits as much as one ten times larger.

    The changes have random signs. With continuous logits, the quotient of the two effects is about
    a tenth; with noise that is derived from the image, it is about 1.
    """
    sign = GeneratorNoise(generator(probe.x.device, probe.seed, "signs")).normal(probe.x).sign()
    with torch.no_grad():
        logits = probe.logits_of(probe.x)
        small, large = (
            (probe.logits_of((probe.x + size * sign).clamp(0, 1)) - logits).abs().amax(1)
            for size in (1e-3, 1e-2)
        )
    jumps = (small > large / 2) & (small > 1e-4 * logits.abs().amax(1))
    fraction = fraction_of(jumps)
    message = f"the logits of {fraction:.1%} of the images jump when pixels change by 0.001"
    return indicator_above(0.5, "discontinuous", message, fraction)


def masked_gradients(probe: Probe, twenty: Tensor) -> Indicator | None:
    """A margin loss and a short random search break many images that PGD-20 does not.

    They must be more than a tenth of the images by one standard deviation of their number, and
    more than none by two.
    `twenty` has the verdicts, (n,), of PGD-20 on the cross-entropy. On 108 sound small nets and
    balls, the others broke up to 9 % more of the images; with a sigmoid after the logits, mostly
    between 15 % and 40 %.
    """
    rng = generator(probe.x.device, probe.seed, "search")
    attack = standard_pgd(probe.norm, probe.epsilon, 20, is_margin=True)
    images = perturb(attack, probe.logits_of, probe.x, probe.y, GeneratorNoise(rng))
    found = random_search(
        probe.logits_of, probe.x, probe.y, images, norm=probe.norm, epsilon=probe.epsilon, rng=rng
    )
    n_missed = int((twenty & ~found).sum())
    fraction, tolerance = n_missed / len(found), math.sqrt(n_missed) / len(found)
    message = f"a margin loss and a random search break {fraction:.1%} that PGD-20 does not"
    limit = max(0.1 + tolerance, 2 * tolerance)
    return indicator_above(limit, "masked-gradients", message, fraction)


def scale_dependent(probe: Probe, unscaled: Tensor) -> Indicator | None:
    """PGD-10 breaks more once the logits are scaled to a mean gap of 1 between the two largest.

    A model of a healthy scale is attacked equally well without scaling. A model whose logits were
    multiplied (by 30 or by 1,000) saturates the cross-entropy and is broken only when that is
    undone. `unscaled` has the verdicts, (n,), of the attack without scaling; the value is the
    accuracy that was due to the scale alone.
    """
    with torch.no_grad():
        best, second = probe.logits_of(probe.x).topk(2, 1).values.T
    scale = 1 / max(float((best - second).mean()), 1e-12)
    scaled = probe.under(standard_pgd(probe.norm, probe.epsilon, 10), scale=scale)
    excess = significant_excess(unscaled, scaled)
    message = f"PGD-10 breaks {excess:.1%} more of the images on logits times {scale:.3g}"
    return indicator_above(0, "scale-dependent", message, excess)


def loss_still_moving(probe: Probe) -> Indicator | None:
    """PGD gains more than a fifth of the margin that it gains in its last 10 steps.

    Only images that stay correct are considered, as more steps might break some of them. Along a
    straight path the margin grows evenly, whereas the cross-entropy of a confident model grows
    exponentially, so that most of its rise is always late. Sound small nets gain at most a tenth of
    the margin in the last 10 of 50 steps, in all norms. With 25 steps or more, the last 10 are all
    taken in the ball itself, in L1 too.
    """
    margins: list[Tensor] = []

    def recorded(x: Tensor) -> Tensor:
        logits = probe.logits_of(x)
        margins.append(margin(logits.detach(), probe.y))
        return logits

    attack = standard_pgd(probe.norm, probe.epsilon, probe.n_steps)
    rng = generator(probe.x.device, probe.seed, "probe")
    images = perturb(attack, recorded, probe.x, probe.y, GeneratorNoise(rng))
    with torch.no_grad():
        stays_correct = recorded(images).argmax(1) == probe.y
    late, whole = (
        float((margins[-1] - margins[i])[stays_correct].sum()) for i in (-min(11, len(margins)), 0)
    )
    fraction = late / whole if whole > 0 else 0.0
    message = f"{fraction:.1%} of the margin that PGD-{probe.n_steps} gains is in its last 10 steps"
    return indicator_above(0.2, "loss-still-moving", message, fraction)


def rises_with_epsilon(probe: Probe, middle: Tensor) -> Indicator | None:
    """Accuracy under PGD-10 rises from epsilon / 2 to epsilon (`middle`, (n,)) or to 2 epsilon."""
    small, large = (
        probe.under(standard_pgd(probe.norm, _capped(probe.norm, factor * probe.epsilon), 10))
        for factor in (0.5, 2)
    )
    rise = max(significant_excess(middle, small), significant_excess(large, middle))
    message = f"doubling epsilon raises the accuracy under PGD-10 by {rise:.1%}"
    return indicator_above(0, "rises-with-epsilon", message, rise)


def above_chance(probe: Probe) -> Indicator | None:
    """Accuracy under PGD-20 at linf 0.5 is above that of always guessing the commonest label."""
    accuracy = fraction_of(probe.under(standard_pgd("linf", 0.5, 20)))
    chance = int(probe.y.bincount().max()) / len(probe.y)
    tolerance = 2 * math.sqrt(chance * (1 - chance) / len(probe.y))
    message = f"accuracy {accuracy:.1%} at linf 0.5, where guessing yields {chance:.1%}"
    return indicator_above(chance + tolerance, "above-chance", message, accuracy)


def order_violations(verdicts: Mapping[str, Tensor]) -> tuple[Indicator, ...]:
    """Of two neighbours in `STRENGTH`, the stronger breaks fewer images, beyond chance.

    `verdicts`, (n,) by attack, must come from attacks that each saw every naturally correct image.
    """
    present = [name for name in STRENGTH if name in verdicts]
    violations = []
    for weaker, stronger in itertools.pairwise(present):
        excess = significant_excess(verdicts[stronger], verdicts[weaker])
        message = f"accuracy under {stronger} is {excess:.1%} above that under {weaker}"
        violations.append(indicator_above(0, "order-violated", message, excess))
    return tuple(violation for violation in violations if violation is not None)


def square_stronger(verdicts: Mapping[str, Tensor]) -> Indicator | None:
    """Square breaks more than 0.2 % of the images, none of which a gradient attack breaks."""
    gradient_based = [v for name, v in verdicts.items() if name not in ("natural", "square")]
    if "square" not in verdicts or not gradient_based:
        return None
    survivors = torch.stack([verdicts["natural"], *gradient_based]).all(0)
    fraction = fraction_of(survivors & ~verdicts["square"])
    message = f"Square alone breaks {fraction:.2%} of the images"
    return indicator_above(0.002, "square-stronger", message, fraction)


def reduced_budget(n_iterations: int, n_queries: int) -> Indicator | None:
    """AutoAttack ran with fewer than its standard 100 iterations or 5,000 queries."""
    fraction = min(1.0, n_iterations / 100, n_queries / 5000)
    message = f"{n_iterations} of 100 iterations, {n_queries} of 5000 queries"
    indicator = Indicator(name="reduced-budget", message=message, value=fraction)
    return indicator if fraction < 1 else None


def library_warnings(messages: Sequence[str]) -> tuple[Indicator, ...]:
    """AutoAttack's own warnings, whose value counts the occurrences.

    Warnings that differ only in their numbers are one, with the range of each number.
    """
    alike: dict[str, list[str]] = {}
    for message in messages:
        alike.setdefault(_NUMBER.sub("#", message), []).append(message)
    return tuple(
        Indicator(name="library-warning", message=_with_ranges(same), value=len(same))
        for same in alike.values()
    )


def significant_excess(verdicts: Tensor, reference: Tensor) -> float:
    """How much higher an accuracy is than the reference, or 0 if that can be chance.

    Verdicts, (n,), on the same images are compared in pairs (McNemar 1947): among the images on
    which they differ, the gains must outnumber the losses by two standard deviations.
    """
    gained = int((verdicts & ~reference).sum())
    lost = int((~verdicts & reference).sum())
    if gained - lost <= 2 * math.sqrt(gained + lost):
        return 0.0
    return (gained - lost) / len(verdicts)


def fraction_of(verdicts: Tensor) -> float:
    """The fraction of True verdicts, which is exact where a float32 mean is not."""
    return int(verdicts.sum()) / len(verdicts)


def indicator_above(limit: float, name: str, message: str, value: float) -> Indicator | None:
    """The indicator if its value is above the limit."""
    return Indicator(name=name, message=message, value=value) if value > limit else None


def _with_ranges(messages: Sequence[str]) -> str:
    """The first message, in which each number that varies is `lowest to highest`."""
    columns = zip(*(_NUMBER.findall(message) for message in messages), strict=True)
    ranges = iter([sorted(set(column), key=float) for column in columns])

    def as_range(_: re.Match[str]) -> str:
        values = next(ranges)
        return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"

    return _NUMBER.sub(as_range, messages[0])


def _fraction_of_zeros(gradient: Tensor) -> float:
    return fraction_of(gradient.flatten(1).abs().amax(1) == 0)


def _capped(norm: Norm, epsilon: float) -> float:
    return min(epsilon, 1.0) if norm == "linf" else epsilon
