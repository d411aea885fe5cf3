"""The figures of the parameters."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.reports import RARE, axes, ledger_of, page_of


def test_what_is_conditional_stands_at_the_foot_of_its_axis(tmp_path: Path) -> None:
    ledger = ledger_of(12)
    params = {t.user_attrs["trial"]: t.params for t in ledger.results.ended()}
    (axis,) = [a for a in axes(page_of(tmp_path, ledger)) if a["label"] == RARE]
    assert axis["ticktext"][0] == "not set"
    for point, height in zip(ledger.results.points(), axis["values"], strict=True):
        assert (height == axis["tickvals"][0]) == (RARE not in params[point.trial])
