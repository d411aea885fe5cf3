"""Several sweeps of the same problem side by side: their fronts, and how these grew with cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from generalist_core.config import TrainConfig
from generalist_core.config.codec import to_dict
from generalist_core.validation import InvalidConfigError
from search.config import Floor, SweepConfig
from search.files import read_if_intact, read_json
from search.front.front import Front
from search.front.points import values_of
from search.front.repeats import Attainment, attainment
from search.study.folder import Sweep
from search.study.records import Growth, TrialCounts
from search.study.trials import Goals, growth_of
from search.wording import printable


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One of the sweeps; `n_on_joint_front` of its points are dominated by none of the others.

    `hypervolume_at_cost` is that after the cost of the cheapest sweep, and `cost_to_level` what it
    cost to reach the hypervolume of the worst sweep. Hypervolumes are above the same point.
    """

    name: str
    config: SweepConfig
    counts: TrialCounts
    front: Front
    history: Sequence[Growth]
    attainment: Attainment | None
    forward_images: float
    n_on_joint_front: int
    hypervolume_at_cost: float
    cost_to_level: float

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "sweep": self.name,
            "data": self.config.base.data.name,
            "space": self.config.space,
            "completed": self.counts.completed,
            "points_on_front": len(self.front.points),
            "points_on_joint_front": self.n_on_joint_front,
            "hypervolume": self.front.hypervolume,
            "hypervolume_at_cost": self.hypervolume_at_cost,
            "cost_to_level": self.cost_to_level,
            "forward_images": self.forward_images,
            "growth": [[step.forward_images, step.hypervolume] for step in self.history],
            "front": [point.to_dict() for point in self.front.points],
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Sweeps side by side, at the same `cost` and `level` of the hypervolume.

    The `cautions` are sentences that say in what the sweeps do not compare.
    """

    objectives: tuple[str, ...]
    reference: tuple[float, ...]
    cost: float
    level: float
    sweeps: tuple[Compared, ...]
    cautions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "objectives": list(self.objectives),
            "reference_point": list(self.reference),
            "cost": self.cost,
            "level": self.level,
            "cautions": list(self.cautions),
            "sweeps": [sweep.to_dict() for sweep in self.sweeps],
        }


def compare(sweeps: Mapping[str, Sweep]) -> Comparison:
    """Compare sweeps, by the names under which they are shown.

    The reference point of all hypervolumes is the lowest of those of the sweeps.

    Raises:
        InvalidConfigError: there are fewer than two sweeps, or they have other objectives.
    """
    names = _common_objectives(sweeps)
    references = np.array([sweep.results.reference for sweep in sweeps.values()])
    floors = [Floor(objective=n, accuracy=x) for n, x in zip(names, references.min(0), strict=True)]
    goals = Goals(objectives=names, floors=tuple(floors))
    grown = [growth_of(s.results.ended(), s.results.points(), goals) for s in sweeps.values()]
    cost = min((history[-1].forward_images if history else 0.0) for history in grown)
    level = min((history[-1].hypervolume if history else 0.0) for history in grown)
    return Comparison(
        objectives=names,
        reference=goals.reference,
        cost=cost,
        level=level,
        sweeps=tuple(
            Compared(
                name=name,
                config=sweep.config,
                counts=sweep.counts,
                front=goals.front_of(sweep.results.points()),
                history=history,
                attainment=_attainment(sweep),
                forward_images=sweep.results.cost()["forward_images"],
                n_on_joint_front=n_on_joint_front(
                    sweep, [o for o in sweeps.values() if o is not sweep]
                ),
                hypervolume_at_cost=max(
                    (g.hypervolume for g in history if g.forward_images <= cost), default=0.0
                ),
                cost_to_level=next(
                    (g.forward_images for g in history if g.hypervolume >= level > 0), 0.0
                ),
            )
            for (name, sweep), history in zip(sweeps.items(), grown, strict=True)
        ),
        cautions=tuple(_cautions(sweeps, references)),
    )


def _common_objectives(sweeps: Mapping[str, Sweep]) -> tuple[str, ...]:
    """The objectives of all sweeps, of which there are two or more."""
    if len(sweeps) < 2:
        raise InvalidConfigError(
            f"There must be two sweeps or more to compare, but got {', '.join(sweeps) or 'none'}. "
            "Name each folder once."
        )
    objectives = {name: sweep.results.objectives for name, sweep in sweeps.items()}
    if len(set(objectives.values())) > 1:
        found = "; ".join(f"{name} has {', '.join(of)}" for name, of in objectives.items())
        raise InvalidConfigError(f"Compared sweeps must have the same objectives, but {found}.")
    return next(iter(objectives.values()))


def n_on_joint_front(sweep: Sweep, others: Sequence[Sweep]) -> int:
    """How many points of a sweep's front no point of the other sweeps dominates."""
    objectives = sweep.results.objectives
    own = values_of(sweep.front.points, objectives)[:, None]
    rest = np.concatenate([values_of(other.front.points, objectives) for other in others])
    dominates = np.all(rest >= own, axis=-1) & np.any(rest > own, axis=-1)
    return len(own) - int(np.count_nonzero(np.any(dominates, axis=1)))


def _attainment(sweep: Sweep) -> Attainment | None:
    rows = read_if_intact(sweep.files.repeats).get("repeats", [])
    return attainment(rows, sweep.results.objectives) if rows else None


def _cautions(sweeps: Mapping[str, Sweep], references: np.ndarray[Any, Any]) -> Iterator[str]:
    def differ(parts: Sequence[Any]) -> bool:
        return len({json.dumps(part) for part in parts}) > 1

    every = list(sweeps.values())
    pins = [read_json(sweep.files.request).get("pins", {}).get("images") for sweep in every]
    if differ([pin for pin in pins if pin is not None]):
        yield "The sweeps have other images, so their accuracies are not of the same problem."
    if differ([to_dict(sweep.config.base.evaluation)["attacks"] for sweep in every]):
        yield "The sweeps are judged by other attacks, so their robust accuracies do not compare."
    judged = [{point.n_images for point in sweep.results.points()} for sweep in every]
    if differ([sorted(n) for n in judged if n]):
        yield "The sweeps are judged on other numbers of images: accuracies do not compare."
    if differ([_precision(sweep.config.base) for sweep in every]):
        yield (
            "The sweeps are judged by attacks in other precisions, so small differences of their "
            "robust accuracies say nothing."
        )
    if len(np.unique(references, axis=0)) > 1:
        yield "The sweeps were directed to other regions of interest."
    for name, sweep in sweeps.items():
        if sweep.counts.unfinished:
            yield f"{name} has unfinished trials, which are not counted."


def _precision(base: TrainConfig) -> str:
    """The precision in which the attacks of the evaluation run."""
    return "float64" if base.precision == "float64" else base.evaluation.precision


def comparison_table(comparison: Comparison) -> Table:
    """The comparison for the console, one row per sweep."""
    table = Table(title="Sweeps compared (validation)", title_justify="left")
    table.add_column("sweep", overflow="fold")
    at_equal = (f"at {comparison.cost:.3g}", f"cost to {comparison.level:.4f}", "cost")
    for column in ("trials", "front", "joint front", "hypervolume", *at_equal):
        table.add_column(column, justify="right")
    for sweep in comparison.sweeps:
        table.add_row(
            printable(sweep.name),
            str(sweep.counts.completed),
            str(len(sweep.front.points)),
            str(sweep.n_on_joint_front),
            f"{sweep.front.hypervolume:.4f}",
            f"{sweep.hypervolume_at_cost:.4f}",
            f"{sweep.cost_to_level:.3g}",
            f"{sweep.forward_images:.3g}",
        )
    return table
