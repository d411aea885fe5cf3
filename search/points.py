"""The JSON form of operating points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.evaluation import OperatingPoint
from search.release_ratio import as_ratio


def point_to_dict(point: OperatingPoint) -> dict[str, Any]:
    """The JSON form of an operating point."""
    return {
        "ratio": point.ratio,
        "accuracies": dict(point.accuracies),
        "n_images": point.n_images,
        "epoch": point.epoch,
    }


def points_from_dicts(rows: Sequence[Mapping[str, Any]]) -> list[OperatingPoint]:
    """What `point_to_dict` wrote."""
    return [
        OperatingPoint(
            ratio=as_ratio(row["ratio"]),
            accuracies=row["accuracies"],
            n_images=row["n_images"],
            epoch=row["epoch"],
        )
        for row in rows
    ]
