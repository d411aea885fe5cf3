"""The figure of the lineages of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generalist_core.config import TrainConfig
from generalist_core.config.presets import short
from generalist_core.training.evaluator import OperatingPoint
from spaces import SPACES, Trial, tune_int
from spaces.lineages import START, branch
from tests.helpers.ledgers import COST, new_ledger
from tests.helpers.reports import ledger_of, page_of


def few_lineages(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Branches of robust experts with two to five attack steps."""
    return branch(trial, tune_int(trial, base, "experts.robust.attack.steps", 2, 5))


def lineages_of(line: Mapping[str, Any]) -> list[list[tuple[float, float, str]]]:
    """The markers (x, y, symbol) of each lineage of a trace; gaps are between them."""
    lineages: list[list[tuple[float, float, str]]] = [[]]
    for x, y, symbol in zip(line["x"], line["y"], line["marker"]["symbol"], strict=True):
        if x is None:
            lineages.append([])
        else:
            lineages[-1].append((x, y, symbol))
    return lineages


def test_a_line_goes_through_the_branches_of_a_lineage(tmp_path: Path) -> None:
    """In the order of its length; with the hypervolume of each, and a marker for who trained.

    The last trial is the best one: its lineage stands out, and all others are one trace.
    """
    ledger, expected = new_ledger(), dict[int, list[tuple[float, float, str]]]()
    for n in range(16):
        proposal = ledger.ask(few_lineages, short())
        accuracies = {"natural": 0.8, "robust": 0.3 + n / 100}
        point = OperatingPoint(
            mixing_ratio=proposal.mixing_ratio, accuracies=accuracies, n_images=50, epoch=9
        )
        ledger.tell_released(proposal.trial, [point], COST)
        symbol = "circle" if proposal.params["experts.robust.rests"] else "diamond"
        marker = (proposal.params[START], 0.8 * accuracies["robust"], symbol)
        last = proposal.params["experts.robust.attack.steps"]
        expected.setdefault(last, []).append(marker)
    page = page_of(tmp_path, ledger)
    others, leading = page.figures["lineages"]["data"]
    assert lineages_of(leading) == [sorted(expected.pop(last))]
    assert lineages_of(others) == [sorted(markers) for markers in expected.values()]
    assert len(expected) > 1
    assert others["name"] == "other lineages"
    assert leading["name"].startswith("lineage of trial ")
    assert "Coloured lineages hold a point of the front" in page.text


def test_a_sweep_without_lineages_has_no_such_figure(tmp_path: Path) -> None:
    page = page_of(tmp_path, ledger_of(3, of=SPACES["mixing"]))
    assert "lineages" not in page.figures
