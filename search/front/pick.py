"""Choosing one point of a front: by its shape, by bounds, by weights, or by its name.

Every rule but `at` looks at the front alone, so the result depends neither on the order of the
points nor on dominated ones. `knee` does not depend on the scale of an objective either.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generalist_core.config.mixing import GLOBAL, Released, ratio_key, ratio_text, released_order
from generalist_core.validation import InvalidConfigError, require, require_one_of
from search.config import PICKS
from search.front.front import Front
from search.front.points import FrontPoint, points_html, trial_id, values_of
from search.wording import plural

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"

NAME = re.compile(rf"(\d+)[-:]({GLOBAL}|{NUMBER}(?:-{NUMBER})*)", re.IGNORECASE)
"""The name of a point, TRIAL-RATIO or TRIAL-global; a user may also type TRIAL:RATIO."""

ROW = re.compile(r"[1-9]\d{0,8}", re.ASCII)
"""The number of a row in the table of the front."""

Values = NDArray[np.float64]

SLACK = 1e-9
"""Values that differ by less count as equal, so that rounding decides nothing."""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The chosen point, and the reason in words."""

    point: FrontPoint
    reason: str

    def _repr_html_(self) -> str:
        table = points_html([self.point], list(self.point.accuracies))
        return f"<p>{html.escape(self.reason)}</p>{table}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"point": self.point.to_dict(), "reason": self.reason}


def pick(front: Front, spec: str, points: Sequence[FrontPoint] = ()) -> Pick:
    """Choose the point that `spec` asks for, see `search.config.PICKS`.

    Args:
        front: the points to choose from.
        spec: `knee`; least accuracies, separated by commas; the one objective that counts;
            weights of objectives; the name of a point, its trial and mixing ratio or `global`; or
            the number of its row in the table of the front, from 1.
        points: all operating points; the name may be that of one that is not on the front.

    Raises:
        InvalidConfigError: an empty front, a bound that no point reaches, an unknown objective or
            point, or another specification.
    """
    if not front.points:
        raise InvalidConfigError(
            "A front must have points to pick from, but is empty: no trial has completed."
        )
    text = "".join(spec.split())
    if text == "knee":
        return knee(front)
    if spec.split()[:1] == ["max"]:
        return most(front, text.removeprefix("max"))
    if ">=" in text:
        return reaching(front, _numbers(spec, ">="))
    if "=" in text:
        return weighted(front, _numbers(spec, "="))
    if ROW.fullmatch(text):
        return at_row(front, int(text))
    if (name := NAME.fullmatch(text)) is None:
        raise _malformed(spec)
    return at(front, points or front.points, *name.groups())


def knee(front: Front) -> Pick:
    """The point farthest above the line through the extremes of the front (Das 1999).

    "On characterizing the knee of the Pareto curve". The objectives are scaled to [0, 1] over the
    front. With two of them the extremes are (0, 1) and (1, 0), and the distance from the line grows
    with the sum of the objectives; with more, the line is the plane where the sum is 1. If no point
    lies above it, as with two points, the point with the largest product is taken, which by itself
    dominates the largest volume. If the sweep has a region of interest that the front reaches, only
    the points in it count.
    """
    points = _of_interest(front)
    if len(points) == 1:
        where = "of the front" if len(front.points) == 1 else "in the region of interest"
        return _picked(front, points[0], f"the only point {where}")
    values = values_of(points, front.objectives)
    span = np.ptp(values, axis=0)
    scaled = (values - values.min(0)) / np.where(span > 0, span, 1.0)
    height = (scaled.sum(1) - 1) / np.sqrt(values.shape[1])
    extremes = f"the {'line' if values.shape[1] == 2 else 'plane'} through the extremes"
    product = values.prod(1)
    if height.max() <= SLACK:
        reason = f"the largest product of objectives of {len(points)} points, none above {extremes}"
        return _picked(front, _best(points, product, height), reason)
    how = f"{height.max():.2f} above {extremes}, objectives scaled to [0, 1] over the front"
    reason = f"the knee of {len(points)} points: {how} (Das 1999)"
    return _picked(front, _best(points, height, product), reason)


def _of_interest(front: Front) -> Sequence[FrontPoint]:
    """The points above the reference point if there are any, otherwise all points."""
    floors = dict(zip(front.objectives, front.reference, strict=True))
    inside = [p for p in front.points if all(_reaches(p, *floor) for floor in floors.items())]
    return inside or front.points


def most(front: Front, objective: str) -> Pick:
    """The point with the best value of an objective; among equals the one with the best mean."""
    _require_known(objective, front)
    values = values_of(front.points, front.objectives)
    chosen = _best(front.points, values_of(front.points, [objective])[:, 0], values.mean(1))
    return _picked(front, chosen, f"the largest {objective} accuracy on the front")


def reaching(front: Front, bounds: Mapping[str, float]) -> Pick:
    """The best of the objectives without a bound, by their mean, where all bounds are reached.

    If every objective has a bound, the mean of all of them counts.
    """
    for name, bound in bounds.items():
        _require_known(name, front)
        cure = f"Accuracies live in [0, 1]; did you mean {bound / 100:g}?"
        require(0 <= bound <= 1, "0 <= bound <= 1", f"{name}>={bound:g}", cure)
    able = [p for p in front.points if all(_reaches(p, *bound) for bound in bounds.items())]
    law = ", ".join(f"{name}>={bound:g}" for name, bound in bounds.items())
    if not able:
        raise InvalidConfigError(
            f"A point of the front must reach {law}, but {_best_there_is(front, bounds)}. Ask for "
            "less, or search on."
        )
    free = [name for name in front.objectives if name not in bounds] or list(front.objectives)
    best = values_of(able, free).mean(1)
    chosen = _best(able, best, values_of(able, front.objectives).mean(1))
    what = free[0] if len(free) == 1 else f"mean of {' and '.join(free)}"
    number = f"{len(able)} of {plural(len(front.points), 'point')}"
    return _picked(front, chosen, f"the largest {what} where {law}, reached by {number}")


def weighted(front: Front, weights: Mapping[str, float]) -> Pick:
    """The point with the largest weighted mean of accuracies; unnamed objectives have weight 0.

    If the weights are the fractions of natural and attacked images, the mean is the accuracy to
    expect.
    """
    for name in weights:
        _require_known(name, front)
    got = ", ".join(f"{name}={weight:g}" for name, weight in weights.items())
    total = sum(weights.values())
    require(min(weights.values()) >= 0 and total > 0, "min(weights) >= 0 and sum(weights) > 0", got)
    values = values_of(front.points, front.objectives)
    merit = values @ np.array([weights.get(name, 0.0) / total for name in front.objectives])
    chosen = _best(front.points, merit, values.mean(1))
    terms = " + ".join(f"{weight / total:.3g} {name}" for name, weight in weights.items())
    return _picked(front, chosen, f"the largest {terms} on the front, {100 * merit.max():.1f} %")


def is_rule(spec: str) -> bool:
    """Whether a specification chooses by accuracies, and not a point by its name or row."""
    text = "".join(spec.split())
    return ROW.fullmatch(text) is None and NAME.fullmatch(text) is None


def at_row(front: Front, row: int) -> Pick:
    """The point in a row of the front's table, counted from 1."""
    if row > len(front.points):
        raise InvalidConfigError(
            f"The row must be one of the front's {len(front.points)}, but got {row}."
        )
    return _picked(front, front.points[row - 1], "asked for by its row")


def at(front: Front, points: Sequence[FrontPoint], trial: str, ratio: str) -> Pick:
    """The point of a trial at a mixing ratio, which is written exactly or as tables round it.

    `global` in place of a ratio is the trial's global learner.
    """
    released = [point for point in points if point.trial == trial_id(int(trial))]
    if not released:
        known = sorted({point.trial for point in points})
        raise InvalidConfigError(
            f"The trial must be one that released points, but got {trial}. "
            f"These have: {', '.join(known)}."
        )
    matching: dict[str, FrontPoint] = {}
    for reading in (_exactly, _closely, _as_in_tables):
        matching = matching or {p.name: p for p in released if reading(p.mixing_ratio, ratio)}
    if len(matching) > 1:
        raise InvalidConfigError(
            f"The mixing ratio must be that of one point, but {ratio} may be that of "
            f"{' or '.join(matching)}. Give the whole name."
        )
    if not matching:
        ratios = sorted((point.mixing_ratio for point in released), key=released_order)
        raise InvalidConfigError(
            f"The mixing ratio must be one that was released, but got {ratio}. "
            f"Trial {released[0].trial} released {', '.join(map(ratio_text, ratios))}."
        )
    (chosen,), reason = matching.values(), "asked for by its name"
    other = front.as_good_as(chosen)
    if other.name != chosen.name:
        reason += f"; not on the front: {other.name} is as good or better"
    return _picked(front, chosen, reason)


def _picked(front: Front, point: FrontPoint, reason: str) -> Pick:
    """The pick; its reason says how many points of the front cannot be told from it."""
    if n_alike := len(front.alike(point)):
        alike = f"{plural(n_alike, 'other')} of the front"
        reason += f"; {alike} cannot be told from it on {point.n_images} images"
    return Pick(point=point, reason=f"{reason[0].upper()}{reason[1:]}.")


def _best(points: Sequence[FrontPoint], merit: Values, otherwise: Values) -> FrontPoint:
    """The point of largest merit; among equals the second merit decides, then the name."""
    equal = np.flatnonzero(merit >= merit.max() - SLACK)
    equal = equal[otherwise[equal] >= otherwise[equal].max() - SLACK]
    return min([points[int(index)] for index in equal], key=lambda point: point.name)


def _reaches(point: FrontPoint, objective: str, bound: float) -> bool:
    return point.accuracies[objective] >= bound - SLACK


def _best_there_is(front: Front, bounds: Mapping[str, float]) -> str:
    """The best value of the first objective whose bound fails, alone or beside the other bounds."""
    alone = {name: max(p.accuracies[name] for p in front.points) for name in bounds}
    missed = [name for name, bound in bounds.items() if alone[name] < bound - SLACK]
    if missed:
        best = max(front.points, key=lambda point: point.accuracies[missed[0]])
        return f"the best {missed[0]} is {alone[missed[0]]:.4g}, of {best.name}"
    name, *others = bounds
    kept = {other: bounds[other] for other in others}
    able = [p for p in front.points if all(_reaches(p, *bound) for bound in kept.items())]
    if not able:
        return _best_there_is(front, kept)
    best = max(able, key=lambda point: point.accuracies[name])
    law = ", ".join(f"{other}>={bound:g}" for other, bound in kept.items())
    return f"with {law} the best {name} is {best.accuracies[name]:.4g}, of {best.name}"


def _numbers(spec: str, sign: str) -> dict[str, float]:
    """The numbers in `name SIGN number, ...`, by name."""
    numbers: dict[str, float] = {}
    for part in spec.split(","):
        name, separator, number = (piece.strip() for piece in part.partition(sign))
        try:
            value = float(number)
        except ValueError as error:
            raise _malformed(spec) from error
        if not separator or not np.isfinite(value) or name in numbers:
            raise _malformed(spec)
        numbers[name] = value
    return numbers


def _malformed(spec: str) -> InvalidConfigError:
    return InvalidConfigError(f"`--pick` must be one of {PICKS}, but got {spec!r}.")


def _require_known(objective: str, front: Front) -> None:
    require_one_of("objective", objective, front.objectives)


def _exactly(released: Released, text: str) -> bool:
    """Whether `text` is this ratio, or `global` for the global learner."""
    if released == GLOBAL:
        return text.lower() == GLOBAL
    return list(ratio_key(released)) == _weights(text)


def _closely(released: Released, text: str) -> bool:
    """Whether `text` is this ratio up to the sixth digit."""
    weights, wanted = released_order(released), _weights(text)
    return len(weights) == len(wanted) and bool(np.allclose(weights, wanted, rtol=0, atol=1e-6))


def _as_in_tables(released: Released, text: str) -> bool:
    """Whether `text` is this ratio as `ratio_text` rounds it."""
    return [float(f"{weight:.3g}") for weight in released_order(released)] == _weights(text)


def _weights(text: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, text, re.IGNORECASE)]
