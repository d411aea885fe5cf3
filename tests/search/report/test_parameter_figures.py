"""The figures of the parameters."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.reports import PLANTED, RARE, TWO, axes, drawn, ledger_of, page_of


def test_what_is_conditional_stands_at_the_foot_of_its_axis(tmp_path: Path) -> None:
    ledger = ledger_of(12)
    params = {t.user_attrs["trial"]: t.params for t in ledger.results.ended()}
    (axis,) = [a for a in axes(page_of(tmp_path, ledger)) if a["label"] == RARE]
    assert axis["ticktext"][0] == "not set"
    for point, height in zip(ledger.results.points(), axis["values"], strict=True):
        assert (height == axis["tickvals"][0]) == (RARE not in params[point.trial])


def test_a_slice_has_the_best_of_each_training_that_has_the_parameter(tmp_path: Path) -> None:
    ledger = ledger_of(30)
    page, points = page_of(tmp_path, ledger), ledger.results.points()
    params = {t.user_attrs["trial"]: t.params for t in ledger.results.ended()}
    n_rare = sum(RARE in own for own in params.values())
    titles = {
        name: figure["layout"]["xaxis2"]["title"]["text"]
        for name, figure in page.figures.items()
        if name.startswith("slice-")
    }
    assert titles["slice-0"] == "mixing ratio"
    assert f"{RARE} ({n_rare}/30)" in titles.values()
    for figure, title in titles.items():
        parameter = title.split(" (")[0]
        if parameter not in (PLANTED, RARE):
            continue
        data = page.figures[figure]["data"]
        for objective, axis in zip(TWO, ("x", "x2"), strict=True):
            found = {
                pair
                for trace in data
                if trace["xaxis"] == axis
                for pair in zip(trace["x"], trace["y"], strict=True)
            }
            assert found == {
                (
                    float(f"{own[parameter]:.5g}"),
                    float(
                        f"{100 * max(p.accuracies[objective] for p in points if p.trial == t):.5g}"
                    ),
                )
                for t, own in params.items()
                if parameter in own
            }


def test_a_slice_of_names_has_their_ticks(tmp_path: Path) -> None:
    page = page_of(tmp_path, ledger_of(12))
    slices = [figure["layout"] for name, figure in page.figures.items() if "slice" in name]
    (layout,) = [layout for layout in slices if layout["xaxis2"]["title"]["text"] == "sync.how"]
    assert layout["xaxis"]["ticktext"] == ["as-is", "later"]


def test_the_global_learner_has_no_ratio(tmp_path: Path) -> None:
    """It stands at the foot of the axis of the ratio, and is left out of the slice."""
    ledger = ledger_of(3, with_global=True)
    page, points = page_of(tmp_path, ledger), ledger.results.points()
    (axis,) = [axis for axis in axes(page) if axis["label"] == "mixing ratio"]
    at_foot = [value == min(axis["values"]) for value in axis["values"]]
    assert at_foot == [point.is_global for point in points]
    assert axis["ticktext"][0] == "not set"
    dots = [t for t in page.figures["slice-0"]["data"] if t["mode"] == "markers"]
    n_mixtures = sum(not point.is_global for point in points)
    assert sum(len(trace["x"]) for trace in dots) == 2 * n_mixtures


def test_mixtures_of_a_trial_are_joined_by_ratio(tmp_path: Path) -> None:
    ledger = ledger_of(3)
    figure = page_of(tmp_path, ledger).figures["slice-0"]
    (line, *_) = [trace for trace in figure["data"] if trace["mode"] == "lines"]
    assert line["x"].count(None) == 3
    assert len(drawn({"data": figure["data"]}, None)) == 2 * (  # type: ignore[arg-type]
        2 * len(ledger.results.points()) + 3
    )
