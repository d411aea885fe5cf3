"""The benchmark of scale measures what it says, whatever the speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale
from search.folders import SweepFolder


def test_a_missed_goal_is_named() -> None:
    fast = scale.Figures(seconds=1.0, numbers={"page MB": 19.0})
    large = scale.Figures(seconds=1.0, numbers={"page MB": 21.0})
    assert scale.row("report", fast).endswith("as aimed for")
    assert scale.row("report", large).endswith("MISSED: page MB <= 20")
    assert scale.row("front", large).endswith("page MB 21")


@pytest.mark.slow
def test_every_row_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "measured", lambda work: work())
    monkeypatch.setattr(scale, "N_TIMED", 2)
    sizes = scale.Sizes(observations=30, watched=3, warmups=4, front=10)
    rows = dict(scale.measurements(tmp_path, sizes))
    assert rows.keys() >= scale.GOALS.keys()
    assert all(figures.seconds > 0 for figures in rows.values())
    for name, goals in scale.GOALS.items():
        assert goals.keys() - {"seconds"} <= rows[name].numbers.keys()
    assert rows["write the study"].numbers["trials"] >= 30 / 7
    assert rows["the large front"].numbers["points"] >= sizes.front
    assert rows["TensorBoard"].numbers["files"] > 2 * sizes.watched
    store = SweepFolder(tmp_path / "study").warmups
    assert len(list(store.glob("*/*.pt"))) == sizes.warmups + 1
    page = SweepFolder(tmp_path / "large-front").report.read_text()
    rows_of_points = page.count('<summary>show</summary><code class="copied">')
    assert rows_of_points == rows["the large front"].numbers["points"]
