"""Observations that a sampler begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from generalist_core.config.codec import replace_all, replace_at
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.config import SweepConfig
from search.study.folder import custom_parts, write_request
from search.study.ledger import Ledger
from search.study.warm_start import earlier_observations, read_observations, say_what_differs
from spaces import SPACES
from tests.helpers.ledgers import COST, new_ledger, release
from tests.helpers.points import OBJECTIVES
from tests.helpers.tiny import tiny_config

HEADER = "experts.natural.optimizer.lr,sync.start_epoch,sync.every_epochs,release_ratio.1"


def observed(path: Path) -> Ledger:
    ledger = new_ledger()
    for seen in read_observations(path, OBJECTIVES):
        ledger.observe(seen, SPACES["smoke"], short())
    return ledger


def test_rows_of_a_csv_are_observations_but_not_on_the_front(tmp_path: Path) -> None:
    path = tmp_path / "known.csv"
    path.write_text(f"natural,robust,{HEADER}\n0.9,0.5,0.05,9,1,0.4\n0.8,0.6,0.1,12,2,1.0\n")
    ledger = observed(path)
    trials = ledger.study.get_trials()
    assert [trial.values for trial in trials] == [[0.9, 0.5], [0.8, 0.6]]
    assert trials[0].params["sync.start_epoch"] == 9
    assert ledger.results.points() == []
    assert ledger.results.counts().total == 0
    assert ledger.ask(SPACES["smoke"], short()).trial == "0000"


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "known.csv"
    path.write_text(f"natural,robust,{HEADER}\n0.9,0.5,0.05,9,1,0.4\n", encoding="utf-8-sig")
    assert [trial.values for trial in observed(path).study.get_trials()] == [[0.9, 0.5]]


def test_the_study_of_another_sweep_holds_observations_too(tmp_path: Path) -> None:
    earlier, later = new_ledger(), new_ledger()
    proposal = earlier.ask(SPACES["smoke"], short())
    earlier.tell_released(proposal.trial, release(proposal), COST)
    for seen in earlier.results.observations("earlier"):
        later.observe(seen, SPACES["smoke"], short())
    values = [trial.values for trial in earlier.study.get_trials()]
    assert [trial.values for trial in later.study.get_trials()] == values
    assert len(values) == len(release(proposal)) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("natural,a\n0.9,1\n", "a column for each objective.*robust is missing.*line 2"),
        (
            "trial,mixing_ratio,natural,natural_low,robust\n0003,0.5,0.9,0.8,0.5\n",
            "a column per parameter.*Give the folder",
        ),
        (f"natural,robust,{HEADER}\ntrue,0.5,0.05,9,1,0.4\n", "0 <= natural <= 1.*'true'.*line 2"),
        (f"natural,robust,robust,{HEADER}\n0.9,0.5,0.6,0.05,9,1,0.4\n", "each column once.*robust"),
        (f"natural,robust,{HEADER}\n90,0.5,0.05,9,1,0.4\n", "0 <= natural <= 1.*'90'.*line 2"),
        (f"natural,robust,{HEADER}\n0.9,0.5,0.05,99,1,0.4\n", "must be of this space.*line 2"),
        ("natural,robust,mixing.decay\n0.9,0.5,0.5\n", "must be of this space.*line 2"),
    ],
    ids=[
        "no column",
        "a table of points",
        "no number",
        "a column twice",
        "percent",
        "outside its range",
        "another space",
    ],
)
def test_what_is_no_observation_is_named_by_its_line(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "known.csv"
    path.write_text(text)
    with pytest.raises(InvalidConfigError, match=message):
        observed(path)


@pytest.mark.parametrize("text", ["", f"natural,robust,{HEADER}\n"])
def test_a_table_without_rows_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "known.csv"
    path.write_text(text)
    with pytest.raises(InvalidConfigError, match=r"known\.csv has none"):
        earlier_observations(path, SweepConfig(base=short()))


CHANGES = {
    "epsilon": ({"evaluation.attacks.robust.attack.epsilon": 0.25}, "epsilon=0.2 instead of 0.25"),
    "data": ({"data.name": "mnist", "data.flip": True}, "data.name=digits instead of mnist, data."),
    "model": ({"model.width": 8}, "model.width=4 instead of 8"),
    "attack": (
        {"evaluation.attacks.robust.attack": {"type": "MultiTargeted", "epsilon": 0.25}},
        "had evaluation.attacks.robust.type=PGD instead of MultiTargeted. The",
    ),
    "nothing of the problem": ({"seed": 3, "data.root": "elsewhere", "epochs": 30}, ""),
}


@pytest.mark.parametrize(("changes", "said"), CHANGES.values(), ids=CHANGES)
def test_a_sweep_that_measured_something_else_is_said(
    changes: dict[str, Any], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = replace_at(tiny_config(), "evaluation.attacks.robust.attack.epsilon", 0.2)
    write_request(tmp_path, SweepConfig(base=base), "s", custom_parts(None, None), {"images": "a"})
    now = replace_all(base, changes.items())
    say_what_differs([str(tmp_path), "rows.csv"], now, "a")
    assert [said in record.getMessage() for record in caplog.records] == ([True] if said else [])
    say_what_differs([str(tmp_path)], base, "b")
    assert "images of digest a instead of b" in caplog.records[-1].getMessage()
