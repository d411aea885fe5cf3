"""What a sweep's report shows, gathered once: points and front, the trials' story, the request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.files import disk_bytes, read_json
from search.front.front import Front
from search.front.points import FrontPoint, release_curves
from search.front.repeats import REPEATS, Attainment, attainment, spreads
from search.report.importance import Importance, importances
from search.report.published import ReferencePoint
from search.study.failures import Failure
from search.study.records import Growth, TrialCounts
from search.study.results import Results

VERIFIED = "verified.json"

PASSWORD = re.compile(r"(?<=://)[^\s/@'\"]+@")


@dataclass(frozen=True, kw_only=True)
class ReportContents:
    """A sweep as its report shows it.

    `params` are the searched parameters of each trial, `verified` the rows of `verified.json` by
    the points' names, `spreads` the mean and deviation over the repeats of each point of the front,
    `request` and `environment` what `sweep.json` holds, without passwords.
    """

    name: str
    points: Sequence[FrontPoint]
    front: Front
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
        """Their names, natural accuracy first."""
        return self.front.objectives

    def suspicions(self, point: str) -> list[tuple[str, str]]:
        """Signs that an attack failed on a verified point: their names, and what they say."""
        suites = self.verified[point]["attacks"].values()
        return [(sign["name"], sign["message"]) for suite in suites for sign in suite["indicators"]]

    @property
    def curves(self) -> list[list[FrontPoint]]:
        """Each trial's points by mixing ratio: its release curve."""
        return release_curves(self.points)


def gather(
    folder: Path, results: Results, reference: Sequence[ReferencePoint] = ()
) -> ReportContents:
    """Everything that the report of a sweep shows, from its study and its folder."""
    front, repeats = results.front(), _read(folder / REPEATS)
    around = {point.name: spreads(folder, point, front.objectives) for point in front.points}
    verified, sweep = _read(folder / VERIFIED) or {}, _read(folder / "sweep.json") or {}
    return ReportContents(
        name=folder.absolute().name,
        points=results.points(),
        front=front,
        params={record.trial: _searched(record.params) for record in results.records()},
        history=results.history(),
        importances=importances(results),
        attainment=attainment(repeats, front.objectives) if repeats else None,
        spreads={name: spread for name, spread in around.items() if spread is not None},
        verified={row["name"]: row for row in verified.get("points", [])},
        reference=reference,
        counts=results.counts(),
        failures=results.failures(),
        cost=results.cost(),
        disk_bytes=disk_bytes(folder),
        request=without_passwords(sweep.get("request", {})),
        environment=without_passwords(sweep.get("environment", {})),
    )


def without_passwords(stored: Any) -> Any:
    """JSON data without the user and password of URLs: a report is made to be passed on."""
    if isinstance(stored, dict):
        return {name: without_passwords(value) for name, value in stored.items()}
    if isinstance(stored, list):
        return [without_passwords(value) for value in stored]
    return PASSWORD.sub("...@", stored) if isinstance(stored, str) else stored


def _searched(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if not name.startswith("release_ratio.")}


def _read(path: Path) -> Any:
    return read_json(path) if path.is_file() else None
