"""What the repeats of a front attain."""

from __future__ import annotations

from search.front.repeats import attainment

TWO = ("natural", "robust")


def test_attainment_is_that_of_its_definition() -> None:
    """Two repeats of two points each, by hand: the best of the union, and what both reach."""
    values = {1: [(0.8, 0.5), (0.9, 0.3)], 2: [(0.7, 0.6), (0.85, 0.4)], 3: [(0.1, 0.1)]}
    rows = [
        {"repeat": repeat, "accuracies": dict(zip(TWO, point, strict=True))}
        for repeat, points in values.items()
        for point in points
    ]
    found = attainment(rows, TWO)
    assert (found.n_repeats, found.n_left_out) == (2, 1)
    one, both = (surface.values.tolist() for surface in found.surfaces)
    assert one == [[0.7, 0.6], [0.8, 0.5], [0.85, 0.4], [0.9, 0.3]]
    assert both == [[0.7, 0.5], [0.8, 0.4], [0.85, 0.3]]
