"""The figure of the lineages of a sweep."""

from __future__ import annotations

from pathlib import Path

from generalist_core.config import TrainConfig
from spaces import SPACES, Trial, tune_int
from spaces.lineages import START, branch
from tests.helpers.reports import ledger_of, page_of


def two_lineages(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Branches of robust experts with two or three attack steps."""
    return branch(trial, tune_int(trial, base, "experts.robust.attack.steps", 2, 3))


def test_a_line_goes_through_the_branches_of_a_lineage(tmp_path: Path) -> None:
    """In the order of its length; with the hypervolume of each, and a marker for who trained."""
    ledger = ledger_of(8, of=two_lineages)
    page = page_of(tmp_path, ledger)
    lines = page.figures["lineages"]["data"]
    assert [line["name"] for line in lines] == ["lineage 1", "lineage 2"]
    proposals = ledger.results.proposals()
    points = ledger.results.points()
    expected = [
        (
            proposal.params[START],
            ledger.results.goals.front_of(
                [point for point in points if point.trial == proposal.trial]
            ).hypervolume,
        )
        for proposal in proposals
    ]
    drawn = [pair for line in lines for pair in zip(line["x"], line["y"], strict=True)]
    assert sorted(drawn) == sorted(expected)
    assert all(line["x"] == sorted(line["x"]) for line in lines)
    symbols = [symbol for line in lines for symbol in line["marker"]["symbol"]]
    n_resting = sum(p.params["experts.robust.rests"] for p in proposals)
    assert symbols.count("circle") == n_resting
    assert symbols.count("diamond") == 8 - n_resting > 0
    assert "Coloured lineages hold a point of the front" in page.text


def test_a_sweep_without_lineages_has_no_such_figure(tmp_path: Path) -> None:
    page = page_of(tmp_path, ledger_of(3, of=SPACES["mixing"]))
    assert "lineages" not in page.figures
