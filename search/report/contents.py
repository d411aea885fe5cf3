"""What the report of a sweep shows: its points and front, how its trials ended, and the request."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.files import disk_bytes, read_if_intact, read_json
from search.folders import SweepFolder
from search.front.front import Front
from search.front.pick import Pick, knee, pick
from search.front.points import FrontPoint, by_trial, release_curves
from search.front.repeats import Attainment, attainment, spreads
from search.report.descent import Ancestor, ancestors
from search.report.importance import Importance, importances, searched
from search.report.published import ReferencePoint
from search.study.failures import Failure
from search.study.records import Growth, TrialCounts, TrialRecord
from search.study.results import Results
from search.study.storage import masked

N_DETAILED = 2000
"""Maximum number of points all of which show their parameters, which takes a kilobyte for each."""

N_BARS = 20
"""Maximum number of points on the front whose intervals are drawn as bars, not as a band."""


@dataclass(frozen=True, kw_only=True)
class ReportContents:
    """A sweep as its report shows it.

    `knee` and `chosen` are None as long as the front is empty. `ancestors` has the trials that
    others continue, `params` the searched parameters of each trial, `verified` the rows of
    `verified.json` by the names of the points, `spreads` the mean and standard deviation over the
    repeats of each point on the front, `request` and `environment` the content of `sweep.json`
    without passwords.
    """

    name: str
    points: Sequence[FrontPoint]
    front: Front
    knee: Pick | None
    chosen: Pick | None
    records: Sequence[TrialRecord]
    ancestors: Mapping[str, Ancestor]
    params: Mapping[str, Mapping[str, Any]]
    history: Sequence[Growth]
    importances: Sequence[Importance]
    attainment: Attainment | None
    spreads: Mapping[str, Mapping[str, Any]]
    verified: Mapping[str, Mapping[str, Any]]
    reference: Sequence[ReferencePoint]
    counts: TrialCounts
    failures: Mapping[str, Failure]
    cost: Mapping[str, float]
    disk_bytes: int
    request: Mapping[str, Any]
    environment: Mapping[str, str]

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives, natural accuracy first."""
        return self.front.objectives

    @property
    def has_all_params(self) -> bool:
        """Whether the parameters of every point are shown, and not only of those on the front."""
        return len(self.points) <= N_DETAILED

    @property
    def has_bars(self) -> bool:
        """Whether the figure of the front has the intervals as bars: of few points."""
        return len(self.front.points) <= N_BARS

    @property
    def has_band(self) -> bool:
        """Whether it has them as a band: of many points, whose front is a line."""
        return not self.has_bars and len(self.objectives) == 2

    @functools.cached_property
    def pairs(self) -> list[Front]:
        """With three objectives and more, the front of all points in each two of them."""
        if len(self.objectives) < 3:
            return []
        levels = dict(zip(self.objectives, self.front.reference, strict=True))
        pairs = itertools.combinations(self.objectives, 2)
        return [Front.of(self.points, pair, tuple(levels[n] for n in pair)) for pair in pairs]

    @functools.cached_property
    def best(self) -> dict[str, dict[str, float]]:
        """The best value of each objective that a point of a trial reaches, by the trial's id."""
        return {
            trial: {name: max(p.accuracies[name] for p in points) for name in self.objectives}
            for trial, points in by_trial(self.points).items()
        }

    @functools.cached_property
    def n_on_front(self) -> Counter[str]:
        """How many points of the front each trial has."""
        return Counter(point.trial for point in self.front.points)

    @functools.cached_property
    def like(self) -> dict[str, list[int]]:
        """See `numbers_alike`."""
        return numbers_alike(self.front)

    @property
    def given_importances(self) -> list[Importance]:
        """Those that enough trainings count for."""
        return [one for one in self.importances if one.refusal is None]

    def indicators(self, point: str) -> list[Mapping[str, str]]:
        """Signs that an attack failed on a verified point: `name`, and `message`, a sentence."""
        suites = self.verified[point]["attacks"].values()
        return [indicator for suite in suites for indicator in suite["indicators"]]

    @functools.cached_property
    def curves(self) -> list[list[FrontPoint]]:
        """The release curve of each trial: its mixtures, sorted by mixing ratio."""
        return release_curves(self.points)


def gather(
    folder: Path,
    results: Results,
    reference: Sequence[ReferencePoint] = (),
    spec: str = "knee",
) -> ReportContents:
    """Collect everything that the report of a sweep shows, from its study and its folder.

    `spec` chooses the point whose card is shown, see `search.front.pick.pick`.
    """
    files, front = SweepFolder(folder), results.front()
    points, records = results.points(), results.records()
    repeats = read_if_intact(files.repeats).get("repeats", [])
    verified, request = read_if_intact(files.verified), read_json(files.request, {})
    return ReportContents(
        name=folder.absolute().name,
        points=points,
        front=front,
        knee=knee(front) if front.points else None,
        chosen=pick(front, spec, points) if front.points else None,
        records=records,
        ancestors=ancestors(records),
        params={record.trial: searched(record.params) for record in records},
        history=results.history(),
        importances=importances(results),
        attainment=attainment(repeats, front.objectives) if repeats else None,
        spreads=spreads(folder, front),
        verified={row["name"]: row for row in verified.get("points", [])},
        reference=reference,
        counts=results.counts(),
        failures=results.failures(),
        cost=results.cost(),
        disk_bytes=disk_bytes(folder),
        request=without_passwords(request.get("request", {})),
        environment=without_passwords(request.get("environment", {})),
    )


def numbers_alike(front: Front) -> dict[str, list[int]]:
    """For each point's name the numbers, from 1, of those that it cannot be told apart from."""
    numbers = {point.name: number for number, point in enumerate(front.points, 1)}
    return {p.name: [numbers[other] for other in front.alike(p)] for p in front.points}


def without_passwords(stored: Any) -> Any:
    """JSON data without the passwords in URLs, because reports are passed on."""
    if isinstance(stored, dict):
        return {name: without_passwords(value) for name, value in stored.items()}
    if isinstance(stored, list):
        return [without_passwords(value) for value in stored]
    return masked(stored) if isinstance(stored, str) else stored
