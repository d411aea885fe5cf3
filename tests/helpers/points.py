"""Operating points for tests."""

from __future__ import annotations

from search.front.points import FrontPoint

OBJECTIVES = ("natural", "robust")


def point(natural: float, robust: float, trial: str = "0000", n_images: int = 500) -> FrontPoint:
    """A point at mixing ratio 0.5."""
    return FrontPoint(
        trial=trial,
        mixing_ratio=0.5,
        accuracies={"natural": natural, "robust": robust},
        n_images=n_images,
        epoch=16,
        config={},
    )
